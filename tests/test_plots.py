"""Plots: what they draw, that they draw it without pyplot, and for any number of classes."""

import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure

from tests.conftest import printed
from transfer.plots import charts, fonts, style


def rows(phase, rates):
    return [
        {
            "phase": phase,
            "epoch": i + 1,
            "loss": 1 / (i + 1),
            "accuracy": 0.5 + 0.1 * i,
            "val_loss": 1.1 / (i + 1),
            "val_accuracy": 0.4 + 0.1 * i,
            "learning_rate": rate,
            "seconds": 2.0,
        }
        for i, rate in enumerate(rates)
    ]


def texts(figure):
    """Every text of the figure that a reader sees."""
    return [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_text()]


def draw(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_history_shows_both_phases_one_after_the_other():
    figure = charts.plot_history(rows("head", [1e-3] * 2) + rows("fine-tune", [1e-4, 1e-4, 1e-5]))
    loss, accuracy, rate = figure.axes
    training, validation = accuracy.lines[:2]
    assert training.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert training.get_ydata() == pytest.approx([50, 60, 50, 60, 70])
    assert validation.get_ydata() == pytest.approx([40, 50, 40, 50, 60])
    assert loss.lines[0].get_ydata() == pytest.approx([1, 1 / 2, 1, 1 / 2, 1 / 3])
    marks = {line.get_xdata()[0]: line.get_linestyle() for line in loss.lines[2:]}
    assert marks == {2.5: "--", 4.5: ":"}
    assert rate.get_xlabel() == "epoch (1 to 2: head, 3 to 5: fine-tune)"
    assert rate.get_yscale() == "log"
    figure.draw_without_rendering()
    ticks = [label.get_text() for label in rate.get_yticklabels()]
    assert "1e−03" in ticks and not any("$" in text for text in texts(figure))
    assert {"training", "validation", "next phase begins", "learning rate lowered"} <= set(
        texts(figure)
    )


def test_the_epoch_whose_weights_are_kept_is_marked_and_smoothed_losses_are_told():
    history = rows("head", [1e-3] * 3)
    history[1]["val_loss"] = 0.2
    figure = charts.plot_history(history, label_smoothing=0.1)
    marks = [axes.collections[0].get_offsets().tolist() for axes in figure.axes[:2]]
    assert marks == [[[2, 0.2]], [[2, pytest.approx(50)]]]
    assert "kept: epoch 2" in texts(figure)
    assert "smoothed by 0.1" in figure.axes[0].get_ylabel()
    assert "smoothed" not in charts.plot_history(history).axes[0].get_ylabel()
    assert not charts.plot_history(rows("head", [1e-3])[:0]).axes[0].collections


def test_a_rate_that_falls_all_the_time_has_no_marks():
    figure = charts.plot_history(rows("fine-tune", [1e-3, 9e-4, 5e-4, 1e-4]))
    assert len(figure.axes[0].lines) == 2
    assert "learning rate lowered" not in texts(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "history, label",
    [
        (rows("head", [1e-3]), "epoch (1: head)"),
        (rows("fine-tune", [1e-3, 1e-3]), "epoch (1 to 2: fine-tune)"),
        ([], "epoch"),
    ],
)
def test_history_without_one_of_the_phases(history, label):
    figure = charts.plot_history(history)
    assert figure.axes[2].get_xlabel() == label
    assert len(figure.axes[0].lines) == 2  # the curves, and no mark
    draw(figure)


@pytest.mark.filterwarnings("error")
def test_history_with_missing_values_leaves_gaps():
    history = rows("head", [1e-3, 1e-3])
    history[0]["val_loss"] = None
    del history[1]["val_loss"]
    figure = charts.plot_history(history)
    assert np.isnan(figure.axes[0].lines[1].get_ydata()).all()
    draw(figure)


def cell_texts(figure):
    return [t.get_text() for t in figure.axes[0].texts if t.get_visible()]


def test_confusion_matrix_in_counts_and_in_shares():
    matrix = [[3, 1, 0], [0, 4, 0], [0, 0, 0]]  # the last class has no test images
    figure = charts.plot_confusion_matrix(matrix, ["a", "b", "c"])
    assert cell_texts(figure) == ["3", "1", "4"]
    assert figure.axes[0].get_xlabel() == "predicted class"
    assert figure.axes[0].get_ylabel() == "true class"
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]
    shares = charts.plot_confusion_matrix(matrix, ["a", "b", "c"], normalize=True)
    assert cell_texts(shares) == ["75.0", "25.0", "100.0"]
    assert shares.axes[0].images[0].get_array()[0].tolist() == [75.0, 25.0, 0.0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_classes", [2, 16, 130])
def test_confusion_matrix_of_any_number_of_classes(num_classes):
    names = [f"a class with quite a long name, number {i}" for i in range(num_classes)]
    figure = charts.plot_confusion_matrix(np.eye(num_classes, dtype=int), names, normalize=True)
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert all(len(label) <= style.LONGEST_LABEL for label in labels)
    assert len(set(labels)) == len(labels) == (num_classes if num_classes < 130 else 0)
    draw(figure)


def test_a_share_of_a_thousandth_is_shown_and_a_smaller_one_is_not():
    shares = charts.plot_confusion_matrix(
        [[924, 75, 1], [1, 9_998, 1], [0, 0, 10]], list("abc"), True
    )
    assert cell_texts(shares) == ["92.4", "7.5", "0.1", "100.0", "100.0"]
    assert any("square root" in text for text in texts(shares))


def test_confusion_matrix_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(2, 2\)"):
        charts.plot_confusion_matrix(np.eye(2, dtype=int), ["a", "b", "c"])


def test_reliability_diagram_is_accuracy_at_each_confidence():
    y_true = np.zeros(100, int)
    y_prob = np.array([[0.9, 0.1]] * 60 + [[0.3, 0.7]] * 40)
    calibrated = np.array([[0.6, 0.4]] * 60 + [[0.4, 0.6]] * 40)
    figure = charts.plot_reliability(y_true, y_prob, calibrated)
    axes = figure.axes[0]
    diagonal, before, after = axes.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 100]
    assert before.get_xdata() == pytest.approx([70, 90])
    assert before.get_ydata() == pytest.approx([0, 100])
    assert (after.get_xdata(), after.get_ydata()) == (pytest.approx([60]), pytest.approx([60]))
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(200)  # of each of both
    assert len({bar.get_width() for bar in axes.patches}) == 1
    found = texts(figure)
    assert "as the model says: expected calibration error 34.00\u00a0%" in found
    assert "with the temperature: expected calibration error 0.00\u00a0%" in found
    assert len(charts.plot_reliability(y_true, y_prob).axes[0].lines) == 2
    draw(figure)
    few = charts.plot_reliability(y_true[:9], y_prob[:9], calibrated[:9]).axes[0]
    assert [len(line.get_xdata()) for line in few.lines[1:]] == [0, 0]
    assert sum(bar.get_height() for bar in few.patches) == pytest.approx(200)


def test_reject_curve_marks_the_threshold():
    y_true = np.array([0, 0, 1, 0])
    y_prob = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    figure = charts.plot_reject_curve(y_true, y_prob, threshold=0.75)
    curve, mark = figure.axes[0].lines
    assert curve.get_xdata() == pytest.approx([25, 50, 75, 100])
    assert curve.get_ydata() == pytest.approx([100, 100, 200 / 3, 75])
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (50, 100)
    label = "from calibrated confidence 75.0\u00a0% on: 50.0\u00a0% answered, 100.00\u00a0% right"
    assert label in texts(figure)
    assert len(charts.plot_reject_curve(y_true, y_prob).axes[0].lines) == 1
    assert len(charts.plot_reject_curve(y_true, y_prob, threshold=0.99).axes[0].lines) == 1
    draw(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_classes", [2, 17, 130])
def test_class_distribution(num_classes):
    counts = {"train": np.arange(num_classes), "test": np.full(num_classes, 3)}
    names = [f"class {i}" for i in range(num_classes)]
    figure = charts.plot_class_distribution(counts, names)
    axes = figure.axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == [*range(num_classes), *[3] * num_classes]
    assert f"test ({3 * num_classes:,} images)" in texts(figure)
    assert axes.get_xlabel() == "number of images"
    draw(figure)


def test_class_distribution_refuses_other_classes():
    with pytest.raises(ValueError, match=r"'train'.*\(2,\).*\(3,\)"):
        charts.plot_class_distribution({"train": np.zeros(3)}, ["a", "b"])


def test_a_plot_can_be_drawn_into_an_axes_of_the_caller():
    figure = Figure(figsize=(20, 5), layout="constrained")
    left, right, third, fourth = figure.subplots(1, 4)
    assert charts.plot_confusion_matrix([[1, 0], [0, 1]], ["a", "b"], ax=left) is figure
    assert charts.plot_class_distribution({"test": [1, 2]}, ["a", "b"], ax=right) is figure
    y_true, y_prob = np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]])
    assert charts.plot_reliability(y_true, y_prob, ax=third) is figure
    assert charts.plot_reject_curve(y_true, y_prob, ax=fourth) is figure
    draw(figure)


def test_no_plot_opens_a_pyplot_figure_or_loads_tensorflow():
    """In a process of its own, because other tests may have loaded either."""
    code = """
import io, sys
import numpy as np
from transfer.plots import charts as plots
plots.plot_confusion_matrix(np.eye(2, dtype=int), ["a", "b"]).savefig(io.BytesIO())
plots.plot_history([]).savefig(io.BytesIO())
import matplotlib.pyplot
assert matplotlib.pyplot.get_fignums() == []
assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


NAMES = [
    "$x^{2$",
    r"a$\frac{1}{$",
    "snake_case",
    r"back\slash",
    "y" * 300,
    "two\nlines",
    "$5 or $6",
]


def test_names_stand_as_they_are(recwarn):
    figure = charts.plot_confusion_matrix(np.eye(7, dtype=int), NAMES)
    draw(figure)
    shown = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert {"$x^{2$", r"a$\frac{1}{$", "snake_case", r"back\slash", "two lines"} <= shown
    draw(charts.plot_class_distribution({"train": np.ones(7)}, NAMES))
    own = Figure().subplots()  # of the caller
    charts.plot_confusion_matrix(np.eye(7, dtype=int), NAMES, ax=own)
    own.figure.savefig(io.BytesIO(), format="png")
    assert not recwarn.list


def font_of(folder, characters, family):
    """Writes a font that has these characters alone."""
    builder = FontBuilder(1000)
    names = [".notdef", *(f"g{ord(each)}" for each in characters)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(each): f"g{ord(each)}" for each in characters})
    pen = TTGlyphPen(None)
    for point, move in ((100, pen.moveTo), (900, pen.lineTo)):
        move((point, 0))
    pen.lineTo((500, 800))
    pen.closePath()
    glyph = pen.glyph()
    builder.setupGlyf(dict.fromkeys(names, glyph))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(folder / f"{family}.ttf")
    return str(folder / f"{family}.ttf")


@pytest.fixture
def system_fonts(monkeypatch, tmp_path):
    """The fonts that this system is said to have, beside Matplotlib's."""
    own = [each for each in fonts.font_manager.fontManager.ttflist if "DejaVu" in each.name]
    monkeypatch.setattr(fonts.font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(fonts, "_told", set())
    found = []
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: found)
    fonts.find_fonts.cache_clear()
    yield found
    fonts.find_fonts.cache_clear()


def test_a_font_is_taken_that_has_the_characters(system_fonts, tmp_path, recwarn):
    system_fonts += [
        font_of(tmp_path, "\u732b", "Cats"),
        font_of(tmp_path, "\u72ac\u9ce5", "Others"),
    ]
    names = ["\u732b", "\u72ac and \u9ce5", "plain"]
    told = printed(lambda: draw(charts.plot_class_distribution({"test": np.ones(3)}, names)))
    assert told == "" and not recwarn.list
    assert set(fonts.find_fonts(frozenset("\u732b\u72ac"))[0]) == {"Cats", "Others"}


@pytest.mark.parametrize(("weight", "is_taken"), [(500, True), (700, False)])
def test_a_font_of_medium_weight_alone_is_taken(system_fonts, tmp_path, weight, is_taken):
    entry = fonts.font_manager.ttfFontProperty(
        fonts.font_manager.get_font(font_of(tmp_path, "\u732b", "Medium"))
    )
    fonts.font_manager.fontManager.ttflist.append(dataclasses.replace(entry, weight=weight))
    assert (fonts.find_fonts(frozenset("\u732b"))[0] == ["Medium"]) is is_taken


def test_characters_that_no_font_has_are_said_once(system_fonts, recwarn):
    names = ["\u732b\u732b", "\u72ac", "plain"]
    told = printed(
        lambda: draw(charts.plot_class_distribution({"test": np.ones(3)}, names)), width=200
    )
    assert told.startswith("No font here has \u72ac \u732b: pictures show boxes")
    again = printed(lambda: draw(charts.plot_class_distribution({"test": np.ones(3)}, names)))
    assert again == "" and not recwarn.list


@pytest.mark.parametrize("backend", ["nonsense", "module://of_another.notebook"])
def test_no_backend_of_a_notebook_ends_an_import(backend):
    code = "from transfer.plots import charts, style; style.png(charts.plot_history([]))"
    environment = os.environ | {"MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("normalize", [False, True], ids=["counts", "percent"])
@pytest.mark.parametrize("names", [["Dress", "Shirt", "Trouser x"], list("abcdefgh")])
def test_the_words_of_a_confusion_matrix_stand_within_the_picture(names, normalize):
    figure = charts.plot_confusion_matrix(np.eye(len(names), dtype=int), names, normalize=normalize)
    figure.draw_without_rendering()
    (axes, bar) = figure.axes
    for label in (axes.yaxis.label, axes.xaxis.label, bar.yaxis.label, *axes.get_yticklabels()):
        box = label.get_window_extent()
        assert min(box.x0, box.y0) >= 0, label
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, label
