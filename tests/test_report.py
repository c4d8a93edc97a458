"""What a reader sees: the printed metrics, the folder of a report."""

import base64
import copy
import csv
import dataclasses
import json
import math
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from tests.conftest import make_stripes, printed, tiny_row
from transfer.commands.main import load_command
from transfer.config import Config
from transfer.errors import InputError
from transfer.evaluation.baselines import MeasuredBaseline
from transfer.evaluation.evaluated import evaluate_run
from transfer.evaluation.metrics import compute_metrics
from transfer.evaluation.significance import PairedComparison, Repeats
from transfer.evaluation.temperature import apply_temperature
from transfer.models.backbones import BACKBONES
from transfer.report import document, run_report, sections
from transfer.report.answers import answers_section
from transfer.report.card import model_card
from transfer.report.run_report import Reported, write_report
from transfer.report.table import TableRow, published_rows
from transfer.report.tensorboard import log_pictures
from transfer.report.tracking import Tracker
from transfer.runs import files, finished, predictions
from transfer.runs.facts import PhaseSummary, Summary, read_facts
from transfer.runs.finished import FinishedRun
from transfer.training.run import train

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


def metrics_sections(metrics):
    """What a terminal shows of a run's metrics."""
    blocks = sections.result_section(metrics) + sections.classes_section(metrics)
    return blocks + sections.confused_section(metrics)


def show(blocks, width=80):
    return printed(document.show, blocks, width=width)


def test_printed_metrics():
    text = re.sub(" +\n", "\n", show(metrics_sections(small_metrics()[0])))  # cells are padded
    assert re.search(r"accuracy +96\.67 %", text)
    assert re.search(r"interval of the accuracy +88\.6\d to 99\.0\d %", text)
    assert re.search(r"test images +60\n", text)
    assert re.search(r"loss .+\n95 % interval of the loss +0\.\d{4} to 0\.\d{4}\n", text)
    assert re.search(r"macro F1 .+\n95 % interval of macro F1 +\d\d\.\d\d to 100\.00 %\n", text)
    assert re.search(r"kind_0\|x +100\.00 +95\.00 +97\.44 +20", text)
    assert re.search(r"kind_0\|x +kind_1\|x +1 +5\.0", text)
    assert "\x1b" not in text


def test_printed_metrics_of_perfect_predictions_name_no_confusion():
    metrics = compute_metrics(np.array([0, 1]), np.eye(3)[:2], ["a", "b", "c"])
    text = show(metrics_sections(metrics))
    assert "No image was predicted wrongly." in text
    assert re.search(r"^c +– +– +– +0 *$", text, re.MULTILINE)


def test_printed_metrics_of_many_classes_show_the_worst():
    text = show(metrics_sections(small_metrics(num_classes=40, num_images=80)[0]), width=30)
    assert "20 lowest F1 of 40 classes" in " ".join(text.split())
    assert "kind_0|x" in text and "kind_39|x" not in text
    assert "…" not in text


REPEATS = Repeats("vgg16, 32 px", (0, 1, 2), (0.92, 0.94, 0.93), (0.25, 0.2, 0.24))
COMPARISON = PairedComparison("runs/a", "runs/<b>", 0.946, 0.941, 0.0123)


def test_printed_comparisons_are_sentences():
    text = show(sections.comparisons_section([COMPARISON]), width=200)
    assert "runs/a is better than runs/<b>: 94.60 % against 94.10 %, p = 0.012\n" in text
    assert "McNemar's exact test" in text and "Holm" not in text
    assert "Holm's method for 2 comparisons" in show(
        sections.comparisons_section([COMPARISON] * 2), width=200
    )
    assert show(sections.comparisons_section([])) == ""


def test_printed_repeats_say_mean_min_max_and_n():
    text = show(sections.repeats_section([REPEATS]), width=200)
    assert (
        "vgg16, 32 px, seeds 0, 1, 2: accuracy mean 93.00 %, min 92.00 %, max 94.00 %, n = 3; "
        in (text)
    )
    assert "loss mean 0.2300, min 0.2000, max 0.2500, n = 3\n" in text
    assert show(sections.repeats_section([])) == ""


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
    text = show(sections.calibration_section(calibration()), width=300)
    assert "with temperature 1.250" in text
    assert re.search(r"expected calibration error +3\.21 % +1\.23 %", text)
    assert "a calibrated confidence of 87.50 % on" in text and "calibrated_confidence in" in text
    assert "answers 50.00 % of the test images" in text
    assert "90.00 % [80.00, 95.00] of them are right" in text


def test_printed_calibration_without_a_threshold_or_without_an_answer():
    text = show(sections.calibration_section(calibration(threshold=None, answered=None)), width=200)
    assert "No calibrated confidence reached 99 % accuracy on the validation images." in text
    few = {"temperature": None, "threshold": None, "after": None, "answered": None}
    text = show(sections.calibration_section(calibration(**few, num_validation_images=21)))
    assert "21 validation images are too few" in " ".join(text.split()) and "None" not in text
    none = {"num_images": 0, "share": 0.0, "accuracy": None, "accuracy_interval": None}
    text = show(sections.calibration_section(calibration(answered=none)), width=200)
    assert "answers none of the test images" in text


CLASS_NAMES = ["kind_0|x", "kind_1|x", "kind_2|x"]


def make_evaluated(folder, patch, *, num_classes=3, channels=1, mistakes=2):
    """A finished run of a tiny network whose kept predictions are those of `small_metrics`."""
    patch.setitem(BACKBONES, "tiny", tiny_row())
    generator = np.random.default_rng(0)
    x_train = generator.integers(0, 255, (240, 6, 8, channels), np.uint8)
    x_test = generator.integers(0, 255, (60, 6, 8, channels), np.uint8)
    y_train, y_true = np.arange(240) % num_classes, np.arange(60) % num_classes
    names = np.array(CLASS_NAMES[:num_classes])
    path = folder / "data.npz"
    np.savez(
        path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_true, class_names=names
    )
    config = Config(
        backbone="tiny",
        data=str(path),
        weights="none",
        image_size=32,
        finetune_epochs=1,
        validation_fraction=0.5,
    )
    run_dir = train(config, run_dir=folder / "20250101_tiny", command="python train.py x").run_dir
    for part, count in ((predictions.TEST, 60), (predictions.VALIDATION, 120)):
        y_true = np.arange(count) % num_classes
        y_prob = np.eye(num_classes)[y_true] * 0.6 + 0.4 / num_classes
        y_prob[:mistakes] = np.roll(y_prob[:mistakes], 1, axis=1)
        kept = predictions.Predictions(y_true, y_prob.astype(np.float32))
        predictions.keep_predictions(run_dir, read_facts(run_dir), kept, part)
    return evaluate_run(FinishedRun(run_dir))


NONE_OF_THESE = {
    "threshold": 9.0,
    "share_known": 0.95,
    "test_images": {"num_images": 60, "unknown": 0.05},
    "kinds": [{"name": "digits", "num_images": 400, "unknown": 0.955, "auroc": 0.985}],
}


def make_report(evaluated, **values):
    calibration = run_report.calibrate_run(evaluated)
    rows = [RUN, *published_rows()]
    return write_report(Reported(evaluated, calibration, NONE_OF_THESE, rows, **values))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras_home")))
        yield make_evaluated(tmp_path_factory.mktemp("run"), patch)


@pytest.fixture(scope="module")
def report(evaluated, tmp_path_factory):
    note = "Tested on the sample of 1,000."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras_home")))
        patch.setattr("transfer.plots.style.PICTURE_DPI", 45)  # half the time
        baseline = MeasuredBaseline("SVC", "C=10", 0.9, 60, 30, 1.0, "scikit-learn 1")
        return make_report(
            evaluated,
            note=note,
            comparisons=[COMPARISON],
            repeats=[REPEATS],
            measured=[baseline],
        )


def test_report_folder_holds_the_page_and_its_pictures(report):
    assert report.name == "report.md"
    files = [*PICTURES, "report.md", "report.html", "metrics.json", "predictions.csv"]
    assert sorted(path.name for path in report.parent.iterdir()) == sorted(files)
    for name in PICTURES:
        with Image.open(report.parent / name) as image:
            assert min(image.size) > 80
            assert len(image.convert("L").getcolors(256)) > 10  # something is drawn


def test_tensorboard_gets_the_confusion_matrix_once_however_often_it_is_reported(report):
    logs = report.parent.parent / files.LOGS / "report"
    (events,) = logs.glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert content.count(b"PNG") == 3 and b"confusion_matrix_counts" in content
    draw = document.Picture("sample_predictions", "x", (report.parent / PICTURES[5]).read_bytes())
    log_pictures(report.parent.parent / files.LOGS, [draw, document.Paragraph("y")])
    (events,) = logs.glob("events.out.tfevents.*")
    assert events.read_bytes().count(b"PNG") == 1


def test_report_page_says_it_all(report):
    text = report.read_text(encoding="utf-8")
    assert re.findall(r"!\[.+\]\((.+)\)", text) == PICTURES
    assert text.startswith("# Report: 20250101\\_tiny\n")
    assert "- **Data:** data.npz: 120 training, 120 validation and 60 test images" in text
    assert "- **Working size:** 8 x 6 pixels, gray, squash\n" in text
    assert "- **Command:** `python train.py x`\n" in text
    assert "- **accuracy:** **96.67 %**\n" in text
    assert (
        "## Accuracy on the test images\n\nTested on the sample of 1,000.\n\n| rank | model |"
        in text
    )
    assert "| **mobilenetv2** |" in text and "| SVC (C=10 kernel=rbf) |" in text
    assert f"- {REPEATS.sentence()}\n" in text
    assert "- runs/a is better than runs/\\<b\\>: 94.60 % against 94.10 %, p = 0.012\n" in text
    assert "| kind\\_0\\|x | 100.00 | 95.00 | 97.44 | 20 |" in text
    assert "| kind\\_0\\|x | kind\\_1\\|x | 1 | 5.0 |" in text
    assert re.search(r"\| expected calibration error \| \d+\.\d\d % \| \d+\.\d\d % \|", text)
    assert "from a calibrated confidence of " in text or "No calibrated confidence" in text
    assert "fine-tune: 1 epochs, kept the weights of epoch 1, which has the lowest" in text


def test_the_page_answers_first_and_says_last_where_it_comes_from(report):
    text = report.read_text(encoding="utf-8")
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert titles[:2] == ["In short", "Result"] and titles[-2:] == ["Words", "How it was made"]
    assert "- **How good:** 96.67 % of 60 test images are right; " in text
    confused = r"- **What it confuses:** kind\_0\|x is taken for kind\_1\|x (1 image, 5.0 % of the "
    assert confused in text
    assert text.count("- **What to do next:** ") >= 1
    page = (report.parent / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'href="#([^"]+)"', page)
    assert len(links) == len(titles) - 1 and set(links) < set(re.findall(r'id="([^"]+)"', page))
    assert "## Words" in text and "- **macro:** the mean over the classes" in text


PHASE = PhaseSummary(epochs=5, best_epoch=3, val_loss=0.5, val_accuracy=0.8, seconds=1.0)


@pytest.mark.parametrize(
    "phases, kept, advice",
    [
        ({"head": PHASE}, "head", "a longer run would not pay: of 5 epochs"),
        ({"head": dataclasses.replace(PHASE, best_epoch=5)}, "", "--head-epochs 10"),
        (
            {"head": PHASE, "fine-tune": dataclasses.replace(PHASE, best_epoch=5)},
            "",
            "--finetune-epochs 10",
        ),
        ({"head": PHASE, "fine-tune": PHASE}, "head", "the head alone was better"),
    ],
)
def test_what_to_do_next_follows_from_the_phases(evaluated, phases, kept, advice):
    run = copy.copy(evaluated.run)
    run.summary = Summary(phases, 1.0, {}, kept)
    blocks = answers_section(dataclasses.replace(evaluated, run=run), calibration())
    assert advice in document.to_markdown("x", blocks) and advice in show(blocks, 400)


def test_classes_that_are_missed_and_sure_mistakes_are_named(evaluated):
    metrics = small_metrics()[0]
    worst = min(metrics["per_class"], key=lambda row: row["recall"])
    y_prob = np.eye(3, dtype=np.float32)[[0, 1, 1, 1]] * 0.97 + 0.01
    sure = predictions.Predictions(np.array([0, 1, 2, 0]), y_prob)
    other = dataclasses.replace(evaluated, metrics=metrics, predictions=sure)
    text = document.to_markdown("x", answers_section(other, calibration()))
    assert "labels of 2 test images that it gets wrong" in text
    named = f"more training images of {document.escape_markdown(worst['class_name'])}"
    assert (named in text) == (worst["recall"] < metrics["accuracy"] - 0.05)


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
    for words in ("Report: 20250101_tiny", "kind_0|x", "96.67 %", "runs/<b>", "p = 0.012"):
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
    table = [[row[name] / sum(row.values()) for name in names] for row in y_prob]  # as it wants
    assert metrics["loss"] == pytest.approx(log_loss(y_true, table, labels=names))
    assert metrics["calibration"]["before"]["loss"] == metrics["loss"]
    assert metrics["comparisons"] == [COMPARISON.sentence()]
    assert metrics["repeats"][0]["accuracies"] == list(REPEATS.accuracies)
    assert metrics["baselines"][0]["family"] == "SVC"


def test_report_replaces_an_older_one_and_takes_colour_images_of_two_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.plots.style.PICTURE_DPI", 30)  # half the time
    drawn = {}
    monkeypatch.setattr(
        "transfer.plots.charts.plot_reject_curve",
        lambda *args: drawn.update(args=args) or Figure(),
    )
    evaluated = make_evaluated(tmp_path, monkeypatch, num_classes=2, channels=3, mistakes=0)
    folder = evaluated.run_dir / files.REPORT
    folder.mkdir()
    for name in (PICTURES[0], "report.md"):
        (folder / name).write_text("old", encoding="utf-8")
    text = make_report(evaluated).read_text(encoding="utf-8")
    calibrated = drawn["args"][1]  # with the temperature
    temperature = json.loads((evaluated.run_dir / files.CALIBRATION).read_text())["temperature"]
    y_prob = evaluated.predictions.y_prob
    np.testing.assert_allclose(calibrated, apply_temperature(y_prob, temperature))
    assert not np.allclose(calibrated, y_prob)
    assert "No image was predicted wrongly." in text and "in colour" in text
    assert "more than noise" not in text
    assert (folder / PICTURES[0]).read_bytes().startswith(b"\x89PNG")
    assert "Left out, confused pairs: no test image was predicted wrongly." in text
    assert len(list(folder.iterdir())) == len(PICTURES) + 3


def test_few_validation_images_give_no_temperature_anywhere(evaluated, tmp_path):
    run_dir = tmp_path / "few"
    shutil.copytree(evaluated.run_dir, run_dir)
    facts = json.loads((run_dir / files.CONFIG).read_text())
    facts["data"]["num_images"]["validation"] = 99
    (run_dir / files.CONFIG).write_text(json.dumps(facts))
    y_prob = np.full((99, 3), 1 / 3, np.float32)
    kept = predictions.Predictions(np.arange(99) % 3, y_prob)
    predictions.keep_predictions(run_dir, read_facts(run_dir), kept, predictions.VALIDATION)
    calibration = run_report.calibrate_run(evaluate_run(FinishedRun(run_dir)))
    kept = json.loads((run_dir / files.CALIBRATION).read_text())
    assert kept["temperature"] is kept["threshold"] is calibration["after"] is None
    sentence = "99 validation images are too few for them, at least 100 are needed"
    blocks = sections.calibration_section(calibration)
    pages = [document.to_markdown("t", blocks), document.to_html("t", blocks), show(blocks, 200)]
    run = evaluated.run
    card = model_card("t", run.facts, run.summary, evaluated.metrics, calibration)
    for page in (*pages, card):
        assert sentence in page and "temperature 1" not in page


@pytest.mark.parametrize(
    ("accuracy", "count", "text"),
    [
        (0.9, 2, "90.00 % [80.00, 95.00], on the 30 test images; 2 others have a near duplicate"),
        (0.9, 0, "the same: no test image has a near duplicate"),
        (None, 32, "none left: every test image has one"),
    ],
)
def test_accuracy_without_near_duplicates_stands_below_the_result(accuracy, count, text):
    without = {
        "num_near_duplicates": count,
        "num_images": 30,
        "accuracy": accuracy,
        "accuracy_interval": None if accuracy is None else [0.8, 0.95],
    }
    blocks = sections.result_section(small_metrics()[0] | {"without_near_duplicates": without})
    assert f"**accuracy without near duplicates:** {text}" in document.to_markdown("x", blocks)
    assert text in document.to_html("x", blocks) and text in show(blocks, width=200)


def test_a_section_says_the_same_in_the_terminal_in_markdown_and_in_html():
    for blocks in (
        metrics_sections(small_metrics()[0]),
        sections.calibration_section(calibration()),
        sections.comparisons_section([COMPARISON]),
        sections.repeats_section([REPEATS]),
    ):
        page = Reader(document.to_html("x", blocks)).text
        words = set(re.findall(r"\d+\.\d+", document.to_markdown("x", blocks)))
        assert words and words <= set(re.findall(r"\d+\.\d+", page))
        assert words == set(re.findall(r"\d+\.\d+", show(blocks, width=300)))


def test_data_are_loaded_once_and_each_split_is_decoded_once(tmp_path, monkeypatch):
    """By a fresh evaluation with its report: counted at the doors that load and decode."""
    monkeypatch.setattr("transfer.plots.style.PICTURE_DPI", 30)
    run_dir = make_evaluated(tmp_path, monkeypatch).run_dir
    for name in (files.PREDICTIONS, files.VALIDATION_PREDICTIONS):
        (run_dir / name).unlink()
    calls = []

    def counted(name):
        function = getattr(finished, name)

        def call(split, *args, **kwargs):
            size = getattr(split, "num_images", "")
            calls.append(f"{name} {size}")
            return function(split, *args, **kwargs)

        monkeypatch.setattr(finished, name, call)

    for name in ("load_splits", "fingerprint", "decode_split"):
        counted(name)
    printed(run_report.report_runs, [evaluate_run(FinishedRun(run_dir))], [], all_baselines=False)
    # 120 training, 120 validation and 60 test images; 4 examples for the augmentation's picture.
    assert sorted(calls) == sorted(
        ["load_splits "]
        + [f"fingerprint {count}" for count in (120, 120, 60)]
        + [f"decode_split {count}" for count in (120, 120, 60, 4)]
    )


def test_a_look_counts_classes_and_shows_samples_and_augmentation(tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.plots.style.PICTURE_DPI", 30)
    x_train, y_train = make_stripes(60)
    x_train[7] = x_train[9]  # twice there
    path = tmp_path / "stripes.npz"
    names = np.array(["level", "up|right"])
    np.savez(path, x_train=x_train, y_train=y_train, class_names=names)
    page = tmp_path / "page.html"
    words = [str(path), "--html", str(page), "--image-size", "32", "--rotation-degrees", "30"]
    done = CliRunner().invoke(load_command("look"), words)
    assert done.exit_code == 0, done.output
    read = Reader(page.read_text(encoding="utf-8"))
    for text in (done.stdout, read.text):
        for said in ("up|right", "all 28 x 28 pixels", "all gray", "1 exact pair, 0 near pairs"):
            assert said in text, said
    assert re.search(r"^level +21 +3 +6 *$", done.stdout, re.MULTILINE), done.stdout
    assert [tag for tag, _ in read.tags].count("img") == 2
    assert done.stdout.endswith(f"Page: {page}\n")
    before = sorted(tmp_path.iterdir())
    assert CliRunner().invoke(load_command("look"), [str(path)]).exit_code == 0
    assert sorted(tmp_path.iterdir()) == before  # no page where none was asked for


def test_mlflow_gets_settings_metrics_by_epoch_model_and_report(report, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more packages
    run_dir = report.parent.parent
    tracker = Tracker()
    tracker.log(run_dir)
    tracker.log(run_dir)  # the same once more is the same run
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("transfer").experiment_id])
    facts = read_facts(run_dir)
    assert run.data.params["batch_size"] == str(facts.settled.batch_size)
    losses = [metric.value for metric in client.get_metric_history(run.info.run_id, "val_loss")]
    assert losses == [row["val_loss"] for row in FinishedRun(run_dir).history]
    assert run.data.metrics["test_accuracy"] == pytest.approx(58 / 60)
    names = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert {"model.keras", "README.md", "report"} <= names


def test_without_mlflow_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"pip install '\.\[mlflow\]'"):
        Tracker()
