"""The comparison table, at every width and as Markdown."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import printed
from transfer import console
from transfer.evaluation import published
from transfer.evaluation.baselines import MeasuredBaseline
from transfer.report import document, sections
from transfer.report.table import (
    TableRow,
    baseline_row,
    comparison_table,
    published_rows,
)

RUN = TableRow("mobilenetv2", 0.9455, 10_000, 0.18234, "adam", 54_000, "runs/20250101-mobilenetv2")


def print_table(rows, note=None):
    document.show(sections.table_section(rows, note))


def line_with(text, start):
    return next(line for line in text.splitlines() if f" {start}" in f" {line}")


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
        "7",
        "* mobilenetv2",
        "94.55 [94.09, 94.98]",
        "0.1823",
        "adam",
        "54,000",
        "runs/20250101-mobilenetv2",
    ]
    cells = re.split(r"\s{2,}", line_with(text, "SVC").strip())
    assert cells[2:] == ["89.7 [89.1, 90.3]", "–", "–", "60,000", "Xiao et al. 2017, Table 3"]
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
    assert lines[1:3] == ["Accuracy on the test images", "Tested on the sample of 1,000."]


def test_runs_stand_out_on_a_terminal_and_colours_can_be_turned_off(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)

    def on_terminal(**options):
        buffer = io.StringIO()
        with console.voice(Console(file=buffer, force_terminal=True, width=120, **options)):
            print_table([RUN, *published_rows()])
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


def test_measured_baselines_stand_below_the_published_with_the_difference():
    measured = [
        MeasuredBaseline("SVC", "C=10 kernel=rbf", 0.8982, 10_000, 60_000, 300.0, "scikit-learn 1"),
        MeasuredBaseline(
            "LogisticRegression", "C=1 multi_class=ovr penalty=l2", 0.84, 10_000, 60_000, 9.0, "s 1"
        ),
    ]
    rows = published_rows(measured=measured)
    assert len(rows) == 13 + 10 + 2
    assert rows[0].is_published and not rows[1].is_published
    assert (rows[1].model, rows[1].accuracy) == ("SVC (C=10 kernel=rbf)", 0.8982)
    assert rows[1].source == "scikit-learn 1; published 89.7, here +0.12 points"
    # Not the best of its family, which is quoted above it, but of the same settings.
    (other,) = [row for row in rows if row.source.startswith("s 1")]
    assert other.source == "s 1; published 84.1, here -0.10 points"
    assert rows[rows.index(other) - 1].model.startswith("LogisticRegression (C=1 multi_class=ovr")
    assert len(published_rows(all_baselines=True, measured=measured)) == 126 + 10 + 2
    text = printed(print_table, [RUN, *rows], width=160)
    assert "* SVC (C=10 kernel=rbf)" in text and "89.82 [89.21, 90.40]" in text
    assert baseline_row(measured[0]).source == "scikit-learn 1"  # of data without published results


def markdown_cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_table():
    lines = comparison_table([RUN, *published_rows()]).markdown().splitlines()
    assert len(lines) == 2 + 1 + 23
    assert {len(markdown_cells(line)) for line in lines} == {7}
    assert markdown_cells(lines[2]) == [
        "**7**",
        "**mobilenetv2**",
        "**94.55 [94.09, 94.98]**",
        "**0.1823**",
        "**adam**",
        "**54,000**",
        "runs/20250101-mobilenetv2",
    ]
    assert markdown_cells(lines[3])[2:6] == ["89.7 [89.1, 90.3]", "–", "–", "60,000"]
    assert markdown_cells(lines[3])[6].endswith("(https://arxiv.org/abs/1708.07747)")


def test_rows_are_ranked_and_equal_ones_share_a_rank():
    rows = [TableRow(name, accuracy, 100, None, None, None, "x") for name, accuracy in SCORES]
    lines = comparison_table(rows).markdown().splitlines()[2:]
    assert [markdown_cells(line)[0] for line in lines] == ["**1**", "**2**", "**2**", "**4**"]
    assert line_with(printed(print_table, rows, width=120), "* c").split()[:3] == ["2", "*", "c"]


SCORES = (("a", 0.9), ("b", 0.8), ("c", 0.8), ("d", 0.1))


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
    assert cells[1] == r"**a\|b\_c\*d \<e\>**" and cells[6] == r"x\|y"


def test_printing_a_table_loads_neither_matplotlib_nor_tensorflow():
    code = (
        "import sys; from transfer.report import document, sections, table; "
        "document.show(sections.table_section(table.published_rows())); "
        "assert not {'matplotlib', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
