"""What a reader sees: the printed metrics, the folder of a report."""

import base64
import csv
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from tests.conftest import printed
from transfer.evaluation.calibration import apply_temperature, fit_calibration, measure_calibration
from transfer.evaluation.explain import Explanations, FeatureMaps
from transfer.evaluation.metrics import compute_metrics
from transfer.evaluation.significance import PairedComparison, Repeats
from transfer.report.sections import (
    print_calibration,
    print_comparisons,
    print_metrics,
    print_repeats,
    write_report,
)
from transfer.report.table import TableRow, published_rows

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
    "explanations.png",
    "feature_maps.png",
    "class_distribution.png",
    "augmentation.png",
]


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


REPEATS = Repeats("vgg16, 32 px", (0, 1, 2), (0.92, 0.94, 0.93), (0.25, 0.2, 0.24))
COMPARISON = PairedComparison("runs/a", "runs/<b>", 0.946, 0.941, 0.0123)


def test_printed_comparisons_are_sentences():
    text = printed(print_comparisons, [COMPARISON], width=200)
    assert "runs/a is better than runs/<b>: 94.60 % against 94.10 %, p = 0.012\n" in text
    assert "McNemar's exact test" in text and "Holm" not in text
    assert "Holm's method for 2 comparisons" in printed(
        print_comparisons, [COMPARISON] * 2, width=200
    )
    assert printed(print_comparisons, []) == ""


def test_printed_repeats_say_mean_min_max_and_n():
    text = printed(print_repeats, [REPEATS], width=200)
    assert (
        "vgg16, 32 px, seeds 0, 1, 2: accuracy mean 93.00 %, min 92.00 %, max 94.00 %, n = 3; "
        in (text)
    )
    assert "loss mean 0.2300, min 0.2000, max 0.2500, n = 3\n" in text
    assert printed(print_repeats, []) == ""


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


def explanations():
    maps = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    return Explanations(
        right=np.array([5]),
        wrong=np.array([0]),
        for_predicted=np.concatenate([maps, maps]),
        for_true=maps,
        layer="some_relu",
        example=5,
        feature_maps=[FeatureMaps("some_relu", np.stack([maps[0]] * 3, axis=-1))],
    )


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
        "explanations": explanations(),
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    report_dir = tmp_path_factory.mktemp("run") / "deeper" / "report"
    note = "Tested on the sample of 1,000."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfer.evaluation.plots.PICTURE_DPI", 45)  # half the time
        return write_report(
            report_dir, **report_inputs(), note=note, comparisons=[COMPARISON], repeats=[REPEATS]
        )


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
    assert f"- {REPEATS.sentence()}\n" in text
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
    assert metrics["repeats"][0]["accuracies"] == list(REPEATS.accuracies)


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
