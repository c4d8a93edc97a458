"""What a reader sees: the table at every width, the printed metrics, the folder of a report."""

import base64
import csv
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from transfer.evaluation import published
from transfer.evaluation.calibration import (
    apply_temperature,
    fit_calibration,
    measure_calibration,
)
from transfer.evaluation.metrics import compute_metrics
from transfer.evaluation.report import (
    TableRow,
    comparison_table,
    print_calibration,
    print_comparisons,
    print_metrics,
    print_table,
    published_rows,
    write_report,
)
from transfer.evaluation.significance import PairedComparison

RUN = TableRow("mobilenetv2", 0.9455, 10_000, 0.18234, "adam", 54_000, "runs/20250101-mobilenetv2")
PICTURES = [
    "learning_curves.png",
    "confusion_matrix_counts.png",
    "confusion_matrix_shares.png",
    "reliability_diagram.png",
    "reject_curve.png",
    "sample_predictions.png",
    "mistakes_and_doubts.png",
    "confused_pairs.png",
    "class_distribution.png",
    "augmentation.png",
]


def printed(show, *args, width=80, **options):
    """What `show` prints where the output is no terminal."""
    buffer = io.StringIO()
    show(*args, Console(file=buffer, width=width), **options)
    return buffer.getvalue()


def line_with(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def test_published_rows_are_the_best_of_each_family_or_all():
    best = published_rows()
    assert len(best) == 13 + 10 and len(published_rows(all_baselines=True)) == 126 + 10
    assert best[0].model == "SVC (C=10 kernel=rbf)"
    assert (best[0].accuracy, best[0].num_test_images) == (0.897, 10_000)
    assert (best[0].loss, best[0].optimizer, best[0].training_images) == (None, None, 60_000)
    assert best[1].model.startswith("MLPClassifier")
    assert all(row.is_published for row in best) and not RUN.is_published


def test_table_on_a_wide_console_has_a_run_on_one_line():
    text = printed(print_table, [RUN, *published_rows()], width=120)
    cells = re.split(r"\s{2,}", line_with(text, "* mobilenetv2").strip())
    # The Wilson interval of 9,455 of 10,000, worked out by hand.
    assert cells == [
        "* mobilenetv2",
        "94.55 [94.09, 94.98]",
        "0.1823",
        "adam",
        "54,000",
        "runs/20250101-mobilenetv2",
    ]
    cells = re.split(r"\s{2,}", line_with(text, "SVC").strip())
    assert cells[1:] == ["89.7 [89.1, 90.3]", "–", "–", "60,000", "Xiao et al. 2017, Table 3"]
    assert "Xiao et al. 2017, Table 3: https://arxiv.org/abs/1708.07747" in text


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_table_fits_the_console_and_cuts_nothing(width):
    table_rows = [RUN, *published_rows(all_baselines=True)]
    text = printed(print_table, table_rows, width=width)
    assert "…" not in text and "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width
    for word in ("GradientBoostingClassifier", "PassiveAggressiveClassifier", "94.55"):
        assert word in text
    assert text.count("60,000") == 126 + 9 and "[94.09, 94.98]" in text


@pytest.mark.parametrize("width", [20, 40, 60])
def test_table_on_a_tiny_console_keeps_its_numbers(width):
    text = printed(print_table, [RUN, *published_rows()], width=width)
    for number in ("94.55", "[94.09, 94.98]", "0.1823", "54,000", "[89.1, 90.3]"):
        assert number in text
    assert "…" not in text


def test_narrow_table_names_its_sources_in_notes():
    text = printed(print_table, [RUN, *published_rows()], width=80)
    assert line_with(text, "* mobilenetv2").rstrip().endswith("[1]")
    assert line_with(text, "SVC").rstrip().endswith("[2]")
    assert "\n[1] runs/20250101-mobilenetv2\n" in text
    assert "\n[2] Xiao et al. 2017, Table 3: https://arxiv.org/abs/1708.07747\n" in text


def test_note_stands_directly_under_the_title():
    lines = printed(print_table, [RUN], note="Tested on the sample of 1,000.").splitlines()
    assert lines[:2] == ["Accuracy on the test images", "Tested on the sample of 1,000."]


def test_runs_stand_out_on_a_terminal_and_colours_can_be_turned_off(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)

    def on_terminal(**options):
        buffer = io.StringIO()
        console = Console(file=buffer, force_terminal=True, width=120, **options)
        print_table([RUN, *published_rows()], console)
        return buffer.getvalue()

    coloured = on_terminal(color_system="standard")
    run, published = line_with(coloured, "\x1b[1;32m* mobile"), line_with(coloured, "SVC")
    assert "\x1b[1;32m" in run and "\x1b" not in published
    assert "\x1b[1;32m" not in on_terminal(color_system="standard", no_color=True)


def test_brackets_in_names_are_not_taken_for_markup():
    row = TableRow("net [bold]", 0.5, 10, None, None, None, "here [red]")
    text = printed(print_table, [row], width=120)
    assert "net [bold]" in text and "here [red]" in text


def test_without_published_rows_nothing_is_said_to_be_quoted():
    assert "quoted" not in printed(print_table, [RUN])
    assert "quoted" in printed(print_table, [RUN, *published_rows()])


def markdown_cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_table():
    lines = comparison_table([RUN, *published_rows()]).markdown().splitlines()
    assert len(lines) == 2 + 1 + 23
    assert {len(markdown_cells(line)) for line in lines} == {6}
    assert markdown_cells(lines[2]) == [
        "**mobilenetv2**",
        "**94.55 [94.09, 94.98]**",
        "**0.1823**",
        "**adam**",
        "**54,000**",
        "runs/20250101-mobilenetv2",
    ]
    assert markdown_cells(lines[3])[1:5] == ["89.7 [89.1, 90.3]", "–", "–", "60,000"]
    assert markdown_cells(lines[3])[5].endswith("(https://arxiv.org/abs/1708.07747)")


def test_a_caveat_stands_with_its_source(monkeypatch):
    result = published.PublishedResult(
        "WRN", "", 0.963, "Zhong 2017", "https://z", caveat="old data"
    )
    monkeypatch.setattr(published, "OTHER_RESULTS", (result,))
    row = published_rows()[2]
    assert (row.model, row.full_source) == ("WRN", "Zhong 2017 (old data)")
    assert "Zhong 2017 (old data)" in printed(print_table, [row], width=120)
    assert "[1] Zhong 2017 (old data): https://z" in printed(print_table, [row], width=80)
    assert "[Zhong 2017 (old data)](https://z)" in comparison_table([row]).markdown()


def test_the_first_release_of_the_data_is_explained_below_the_table():
    text = " ".join(printed(print_table, [RUN, *published_rows()]).split())
    assert text.count("replaced on 31 August 2017") == 1
    assert "31 August" not in printed(print_table, [RUN])


def test_markdown_characters_in_names_stay_what_they_are():
    row = TableRow("a|b_c*d\n<e>", 0.5, 10, None, None, None, "x|y")
    cells = markdown_cells(comparison_table([row]).markdown().splitlines()[2])
    assert cells[0] == r"**a\|b\_c\*d \<e\>**" and cells[5] == r"x\|y"


def small_metrics(num_classes=3, num_images=60):
    y_true = np.arange(num_images) % num_classes
    y_prob = np.eye(num_classes)[y_true] * 0.6 + 0.4 / num_classes
    y_prob[:2] = np.roll(y_prob[:2], 1, axis=1)  # two mistakes
    names = [f"kind_{i}|x" for i in range(num_classes)]
    return compute_metrics(y_true, y_prob, names), names, y_true, y_prob


def test_printed_metrics():
    text = printed(print_metrics, small_metrics()[0])
    assert re.search(r"accuracy +96\.67 %", text)
    assert re.search(r"interval +88\.6\d to 99\.0\d %", text)
    assert re.search(r"test images +60\n", text)
    assert re.search(r"loss .+\n95 % bootstrap interval +0\.\d{4} to 0\.\d{4}\n", text)
    assert re.search(r"macro F1 .+\n95 % bootstrap interval +\d\d\.\d\d to 100\.00 %\n", text)
    assert re.search(r"kind_0\|x +100\.00 +95\.00 +97\.44 +20", text)
    assert "kind_0|x taken for kind_1|x: 1 (5.0 %)" in text
    assert "\x1b" not in text


def test_printed_metrics_of_perfect_predictions_name_no_confusion():
    metrics = compute_metrics(np.array([0, 1]), np.eye(3)[:2], ["a", "b", "c"])
    text = printed(print_metrics, metrics)
    assert "confused" not in text
    assert re.search(r"^c +– +– +– +0$", text, re.MULTILINE)


def test_printed_metrics_of_many_classes_show_the_worst():
    text = printed(print_metrics, small_metrics(num_classes=40, num_images=80)[0], width=30)
    assert "20 lowest F1 of 40 classes" in " ".join(text.split())
    assert "kind_0|x" in text and "kind_39|x" not in text
    assert "…" not in text


COMPARISON = PairedComparison("runs/a", "runs/<b>", 0.946, 0.941, 0.0123)


def test_printed_comparisons_are_sentences():
    text = printed(print_comparisons, [COMPARISON], width=200)
    assert "runs/a is better than runs/<b>: 94.60 % against 94.10 %, p = 0.012\n" in text
    assert "McNemar's exact test" in text and "Holm" not in text
    assert "Holm's method for 2 comparisons" in printed(
        print_comparisons, [COMPARISON] * 2, width=200
    )
    assert printed(print_comparisons, []) == ""


def calibration(**values):
    sides = {"expected_calibration_error": 0.0321, "mean_confidence": 0.9, "loss": 0.25}
    answered = {"num_images": 30, "share": 0.5, "accuracy": 0.9, "accuracy_interval": [0.8, 0.95]}
    return {
        "temperature": 1.25,
        "threshold": 0.875,
        "target_accuracy": 0.99,
        "num_validation_images": 6_000,
        "before": sides,
        "after": sides | {"expected_calibration_error": 0.0123},
        "answered": answered,
    } | values


def test_printed_calibration_says_what_an_answer_is_worth():
    text = printed(print_calibration, calibration(), width=300)
    assert "expected calibration error 3.21 %, with temperature 1.250 1.23 %" in text
    assert "from confidence 87.50 % on" in text and "answers 50.00 % of the test images" in text
    assert "90.00 % [80.00, 95.00] of them are right" in text


def test_printed_calibration_without_a_threshold_or_without_an_answer():
    text = printed(print_calibration, calibration(threshold=None, answered=None), width=200)
    assert "No confidence reached 99 % accuracy on the validation images." in text
    none = {"num_images": 0, "share": 0.0, "accuracy": None, "accuracy_interval": None}
    text = printed(print_calibration, calibration(answered=none), width=200)
    assert "answers none of the test images" in text


def report_inputs(num_classes=3, channels=1):
    metrics, names, y_true, y_prob = small_metrics(num_classes)
    row = {"phase": "head", "epoch": 1, "loss": 1.0, "accuracy": 0.5, "seconds": 1.0}
    row |= {"val_loss": 1.0, "val_accuracy": 0.5, "learning_rate": 1e-3}
    return {
        "run_name": "20250101_mobilenetv2",
        "facts": {"data": "sample, 1_000 test images", "command": "`python train.py --seed 1`"},
        "metrics": metrics | {"run_dir": "runs/<x>"},
        "calibration": measure_calibration(fit_calibration(y_true, y_prob), y_true, y_prob),
        "rows": [RUN, *published_rows()],
        "history": [row],
        "class_names": names,
        "y_true": y_true,
        "y_prob": y_prob,
        "test_images": np.zeros((60, 6, 8, channels), dtype=np.uint8),
        "class_counts": {"train": np.arange(num_classes), "test": np.full(num_classes, 20)},
        "originals": np.zeros((2, 6, 8, channels), dtype=np.uint8),
        "augmented": np.zeros((2, 2, 12, 12, 3), dtype=np.float32),
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    report_dir = tmp_path_factory.mktemp("run") / "deeper" / "report"
    note = "Tested on the sample of 1,000."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfer.evaluation.plots.PICTURE_DPI", 45)  # half the time
        return write_report(report_dir, **report_inputs(), note=note, comparisons=[COMPARISON])


def test_report_folder_holds_the_page_and_its_pictures(report):
    assert report.name == "report.md"
    files = [*PICTURES, "report.md", "report.html", "metrics.json", "predictions.csv"]
    assert sorted(path.name for path in report.parent.iterdir()) == sorted(files)
    for name in PICTURES:
        with Image.open(report.parent / name) as image:
            assert min(image.size) > 80
            assert len(image.convert("L").getcolors(256)) > 10  # something is drawn


def test_report_page_says_it_all(report):
    text = report.read_text(encoding="utf-8")
    assert re.findall(r"!\[.+\]\((.+)\)", text) == PICTURES
    assert text.startswith("# Report: 20250101\\_mobilenetv2\n")
    assert "- **data:** sample, 1\\_000 test images\n" in text
    assert "- **command:** `python train.py --seed 1`\n" in text
    assert "- **accuracy:** 96.67 %\n" in text
    assert "## Accuracy on the test images\n\nTested on the sample of 1,000.\n\n| model |" in text
    assert "| **mobilenetv2** |" in text and "| SVC (C=10 kernel=rbf) |" in text
    assert "- runs/a is better than runs/\\<b\\>: 94.60 % against 94.10 %, p = 0.012\n" in text
    assert "| kind\\_0\\|x | 100.00 | 95.00 | 97.44 | 20 |" in text
    assert "| kind\\_0\\|x | kind\\_1\\|x | 1 | 5.0 |" in text
    assert re.search(r"\| expected calibration error \| \d+\.\d\d % \| \d+\.\d\d % \|", text)


class Reader(HTMLParser):
    """Collects the tags of a page, checks that they close, and keeps what is read."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report_is_also_one_page_that_needs_nothing_else(report):
    page = Reader((report.parent / "report.html").read_text(encoding="utf-8"))
    pictures = [values["src"] for tag, values in page.tags if tag == "img"]
    start = "data:image/png;base64,"
    assert [base64.b64decode(source.removeprefix(start)) for source in pictures] == [
        (report.parent / name).read_bytes() for name in PICTURES
    ]
    assert all(source.startswith(start) for source in pictures)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "url(" not in page.text and "@import" not in page.text
    assert ("name", "viewport") in [pair for _, values in page.tags for pair in values.items()]
    assert "@media print" in page.text and "max-width" in page.text
    for words in ("Report: 20250101_mobilenetv2", "kind_0|x", "96.67 %", "runs/<b>", "p = 0.012"):
        assert words in page.text


def read_predictions(path):
    """What a stranger can read of predictions.csv: labels, and a dict of probabilities each."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows] == [str(i) for i in range(len(rows))]
    names = [column[2:] for column in rows[0] if column.startswith("p ")]
    y_prob = [{name: float(row[f"p {name}"]) for name in names} for row in rows]
    return [row["true"] for row in rows], [row["predicted"] for row in rows], y_prob, rows


def test_numbers_recomputed_from_the_predictions_agree_to_the_last_digit(report):
    """With the csv module and scikit-learn alone, nothing of this package."""
    metrics = json.loads((report.parent / "metrics.json").read_text(encoding="utf-8"))
    y_true, y_pred, y_prob, rows = read_predictions(report.parent / "predictions.csv")
    assert y_pred == [max(row, key=row.get) for row in y_prob]
    assert [float(row["confidence"]) for row in rows] == [max(row.values()) for row in y_prob]
    assert metrics["num_images"] == len(y_true) == 60
    assert metrics["accuracy"] == accuracy_score(y_true, y_pred)
    assert metrics["f1_macro"] == f1_score(y_true, y_pred, average="macro")
    names = list(y_prob[0])
    matrix = confusion_matrix(y_true, y_pred, labels=names)
    assert metrics["confusion_matrix"] == matrix.tolist()
    losses = [-math.log(max(row[name], 1e-7)) for row, name in zip(y_prob, y_true, strict=True)]
    assert metrics["loss"] == math.fsum(losses) / len(losses)
    table = [[row[name] for name in names] for row in y_prob]
    assert metrics["loss"] == pytest.approx(log_loss(y_true, table, labels=names))
    assert metrics["calibration"]["before"]["loss"] == metrics["loss"]
    assert metrics["comparisons"] == [COMPARISON.sentence()]


def test_report_replaces_an_older_one_and_takes_colour_images_of_two_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.evaluation.plots.PICTURE_DPI", 30)  # half the time
    for name in (PICTURES[0], "report.md"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    drawn = {}
    monkeypatch.setattr(
        "transfer.evaluation.plots.plot_reject_curve",
        lambda *args: drawn.update(args=args) or Figure(),
    )
    inputs = report_inputs(num_classes=2, channels=3)
    inputs["metrics"] = compute_metrics(inputs["y_true"], np.eye(2)[inputs["y_true"]], ["a", "b"])
    text = write_report(tmp_path, **inputs).read_text(encoding="utf-8")
    calibrated = drawn["args"][1]  # with the temperature
    temperature = inputs["calibration"]["temperature"]
    np.testing.assert_allclose(calibrated, apply_temperature(inputs["y_prob"], temperature))
    assert not np.allclose(calibrated, inputs["y_prob"])
    assert "No image was predicted wrongly." in text
    assert "more than noise" not in text
    assert (tmp_path / PICTURES[0]).read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == len(PICTURES) + 4


def test_printing_a_table_loads_neither_matplotlib_nor_tensorflow():
    code = (
        "import sys; from transfer.evaluation import report; report.published_rows(); "
        "assert not {'matplotlib', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize(
    ("accuracy", "count", "text"),
    [
        (0.9, 2, "90.00 % [80.00, 95.00], on the 30 test images; 2 others have a near duplicate"),
        (0.9, 0, "the same: no test image has a near duplicate"),
        (None, 32, "none left: every test image has one"),
    ],
)
def test_accuracy_without_near_duplicates_stands_below_the_result(tmp_path, accuracy, count, text):
    inputs = report_inputs()
    interval = None if accuracy is None else [0.8, 0.95]
    inputs["metrics"]["without_near_duplicates"] = {
        "num_near_duplicates": count,
        "num_images": 30,
        "accuracy": accuracy,
        "accuracy_interval": interval,
    }
    written = write_report(tmp_path, **inputs).read_text(encoding="utf-8")
    assert f"**accuracy without near duplicates:** {text}" in written
    assert text in (tmp_path / "report.html").read_text(encoding="utf-8")
