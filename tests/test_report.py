"""What a reader sees: the table at every width, the printed metrics, the folder of a report."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from transfer.evaluation import published
from transfer.evaluation.metrics import compute_metrics
from transfer.evaluation.report import (
    TableRow,
    print_metrics,
    print_table,
    published_rows,
    table_markdown,
    write_report,
)

RUN = TableRow("mobilenetv2", 0.9455, 10_000, 0.18234, "adam", 54_000, "runs/20250101-mobilenetv2")
PICTURES = [
    "learning_curves.png",
    "confusion_matrix_counts.png",
    "confusion_matrix_shares.png",
    "sample_predictions.png",
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
    assert len(best) == 13 and len(published_rows(all_baselines=True)) == 126
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
    assert text.count("60,000") == 126 and "[94.09, 94.98]" in text


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
    lines = table_markdown([RUN, *published_rows()]).splitlines()
    assert len(lines) == 2 + 14
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
    assert (row.model, row.source) == ("WRN", "Zhong 2017 (old data)")
    assert "Zhong 2017 (old data): https://z" in printed(print_table, [row], width=120)


def test_markdown_characters_in_names_stay_what_they_are():
    row = TableRow("a|b_c*d\n<e>", 0.5, 10, None, None, None, "x|y")
    cells = markdown_cells(table_markdown([row]).splitlines()[2])
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


def report_inputs(num_classes=3, channels=1):
    metrics, names, y_true, y_prob = small_metrics(num_classes)
    row = {"phase": "head", "epoch": 1, "loss": 1.0, "accuracy": 0.5, "seconds": 1.0}
    row |= {"val_loss": 1.0, "val_accuracy": 0.5, "learning_rate": 1e-3}
    return {
        "run_name": "20250101_mobilenetv2",
        "facts": {"data": "sample, 1_000 test images", "command": "`python train.py --seed 1`"},
        "metrics": metrics,
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
    return write_report(report_dir, **report_inputs(), note=note)


def test_report_folder_holds_the_page_and_its_pictures(report):
    assert report.name == "report.md"
    assert sorted(path.name for path in report.parent.iterdir()) == sorted([*PICTURES, "report.md"])
    for name in PICTURES:
        with Image.open(report.parent / name) as image:
            assert min(image.size) > 200
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
    assert "| kind\\_0\\|x | 100.00 | 95.00 | 97.44 | 20 |" in text
    assert "| kind\\_0\\|x | kind\\_1\\|x | 1 | 5.0 |" in text


def test_report_replaces_an_older_one_and_takes_colour_images_of_two_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.evaluation.plots.PICTURE_DPI", 30)  # half the time
    for name in (PICTURES[0], "report.md"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    inputs = report_inputs(num_classes=2, channels=3)
    inputs["metrics"] = compute_metrics(inputs["y_true"], np.eye(2)[inputs["y_true"]], ["a", "b"])
    text = write_report(tmp_path, **inputs).read_text(encoding="utf-8")
    assert "No image was predicted wrongly." in text
    assert (tmp_path / PICTURES[0]).read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 7


def test_printing_a_table_loads_neither_matplotlib_nor_tensorflow():
    code = (
        "import sys; from transfer.evaluation import report; report.published_rows(); "
        "assert not {'matplotlib', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
