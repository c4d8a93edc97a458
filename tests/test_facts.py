"""What a run knows of itself: whatever a folder says is checked in one place, and bounded."""

import copy
import dataclasses
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_facts
from transfer.config import Config
from transfer.data.geometry import FITS, Geometry
from transfer.errors import InputError
from transfer.models.counts import NetworkCounts
from transfer.runs import files
from transfer.runs.facts import (
    FoldSummary,
    PhaseSummary,
    RepeatsFacts,
    Summary,
    parse_facts,
    parse_summary,
    read_facts,
    read_summary,
)

GOOD = make_facts(
    Config(seed=3),
    command="python train.py",
    repeats=RepeatsFacts(3, 2),
    network=NetworkCounts(4, 100, 1000),
    head=NetworkCounts(1, 20, 18),
    trained={"head": 20, "fine-tune": 120},
)
SUMMARY = Summary(
    {"head": PhaseSummary(2, 1, 0.5, 0.75, 1.5)},
    3.0,
    {"weights": "ab"},
    folds={"1": FoldSummary(9, 0.5, 0.75)},
)


def test_facts_and_summary_come_back_as_they_were(tmp_path):
    GOOD.write(tmp_path)
    SUMMARY.write(tmp_path)
    assert read_facts(tmp_path) == GOOD and read_summary(tmp_path) == SUMMARY
    assert read_summary(tmp_path).kept_phase.val_accuracy == 0.75


def test_the_phase_whose_weights_were_kept_is_named_and_checked(tmp_path):
    both = {
        "head": PhaseSummary(2, 1, 0.25, 0.75, 1.5),
        "fine-tune": PhaseSummary(2, 1, 0.5, 0.5, 1.5),
    }
    last, kept = Summary(both, 3.0), Summary(both, 3.0, kept="head")
    assert last.kept_phase.val_accuracy == 0.5 and last.tell_kept() == ""
    assert kept.kept_phase.val_accuracy == 0.75 and "0.5000 against 0.2500" in kept.tell_kept()
    kept.write(tmp_path)
    assert read_summary(tmp_path) == kept
    for wrong in ("nosuch", 3, None, ["head"]):
        with pytest.raises(InputError, match="kept: should be one of"):
            parse_summary(kept.to_json() | {"kept": wrong}, tmp_path)
    old = kept.to_json()
    del old["kept"]
    assert parse_summary(old, tmp_path) == last


def test_a_place_whose_name_is_not_utf_8_is_found_again(tmp_path):
    place = os.fsdecode(b"/photos/\xff")
    data = dataclasses.replace(GOOD.data, location=place)
    facts = dataclasses.replace(GOOD, data=data, settings=Config(data=place), command=f"x {place}")
    facts.write(tmp_path)
    again = read_facts(tmp_path)
    assert again.data.location == place == again.settings.data
    assert again.command == "x /photos/\\udcff"  # which is printed


def test_a_geometry_is_kept_and_a_run_without_one_is_read_too(tmp_path):
    values = GOOD.to_json()
    assert "geometry" not in values["data"]
    for fit in FITS:
        values["data"]["geometry"] = {"height": 28, "width": 20, "channels": 1, "fit": fit}
        facts = parse_facts(values, tmp_path)
        assert facts.data.geometry == Geometry(28, 20, 1, fit)
        assert parse_facts(facts.to_json(), tmp_path) == facts


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("settings", []),
        ("settings", {"sead": 1}),
        ("settled", {"seed": -1}),
        ("data", "photos"),
        ("data.class_names", "ab"),
        ("data.class_names", ["a"]),
        ("data.class_names", ["a", "a"]),
        ("data.class_names", ["a", 1]),
        ("data.class_names", ["a", "b" * 30_000]),
        ("data.class_names", [str(i) for i in range(200_000)]),
        ("data.num_images", {"train": 1, "validation": 1}),
        ("data.num_images", {"train": 1.5, "validation": 1, "test": 1}),
        ("data.num_images", {"train": True, "validation": 1, "test": 1}),
        ("data.fingerprints", {"train": "", "validation": "", "test": None}),
        ("data.geometry", {"height": 0, "width": 1, "channels": 1, "fit": "squash"}),
        ("data.geometry", {"height": 1, "width": 1 << 40, "channels": 1, "fit": "squash"}),
        ("data.geometry", {"height": 1, "width": 1, "channels": 2, "fit": "squash"}),
        ("data.geometry", {"height": 1, "width": 1, "channels": 3, "fit": "magic"}),
        ("weights.name", "stolen"),
        ("weights.provenance", None),
        ("precision", "float8"),
        ("versions", {"keras": 3}),
        ("command", ["rm"]),
        ("repeats", {"first_seed": 0, "count": 10**9}),
        ("repeats", {"first_seed": -1, "count": 2}),
        ("repeats", "many"),
        ("network", {"layers": 1, "parameters": 1}),
        ("head", {"layers": 1, "parameters": -1, "multiply_adds": 1}),
        ("trained", {"head": 1.5}),
        ("trained", ["head"]),
        ("settings", {"limit": 10**4000}),
        ("settings", {"backbone": ["a" * 10**6]}),
        ("settings", {"x" * 10**6: 1}),
        ("settled", {"hidden_units": "auto"}),
        ("settings", {"batch_size": float("nan")}),
        ("command", [[[[[[[[]]]]]]]]),
    ],
)
def test_a_value_that_does_not_belong_is_one_line(tmp_path, place, value):
    values = copy.deepcopy(GOOD.to_json())
    *path, last = place.split(".")
    inner = values
    for name in path:
        inner = inner[name]
    inner[last] = value
    (tmp_path / files.CONFIG).write_text(json.dumps(values))
    with pytest.raises(InputError) as raised:
        read_facts(tmp_path)
    message = str(raised.value)
    assert "\n" not in message and len(message) < 1200 and files.CONFIG in message
    assert last.split("_")[0] in message


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"phases": {}, "seconds": 1.0},
        {"phases": {"head": {}}, "seconds": 1.0},
        {"phases": {"head": SUMMARY.to_json()["phases"]["head"] | {"val_accuracy": 1.5}}},
        {"phases": {"head": SUMMARY.to_json()["phases"]["head"] | {"val_loss": float("nan")}}},
        SUMMARY.to_json() | {"seconds": "long"},
        SUMMARY.to_json() | {"seconds": 10**400},
        SUMMARY.to_json() | {"seconds": float("inf")},
        SUMMARY.to_json() | {"sha256": ["a"]},
        SUMMARY.to_json() | {"folds": {"1": {"num_images": 9, "val_loss": 0.5}}},
        SUMMARY.to_json() | {"folds": [{"num_images": 9, "val_loss": 0.5, "val_accuracy": 0.5}]},
    ],
)
def test_a_summary_that_is_none_is_one_line(tmp_path, values):
    with pytest.raises(InputError):
        parse_summary(values, tmp_path)


def test_no_control_character_goes_further(tmp_path):
    values = GOOD.to_json()
    values["data"]["class_names"] = ["\x1b[2Ja", "b\u202e\n"]
    values["command"] = "\x1b]0;title\x07"
    values["settings"]["backbone"] = "\x9b31m\u2066"
    facts = parse_facts(values, tmp_path)
    texts = (*facts.data.class_names, facts.command, facts.settings.backbone)
    assert all(text.isprintable() for text in texts)


def test_characters_that_join_others_stay():
    values = GOOD.to_json()
    names = ["\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e"]
    values["data"]["class_names"] = names
    assert list(parse_facts(values, "config.json").data.class_names) == names


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(GOOD.to_json())), JSON)
def test_any_json_in_any_place_is_taken_or_told(name, value):
    values = GOOD.to_json() | {name: value}
    try:
        facts = parse_facts(values, "config.json")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert parse_facts(facts.to_json(), "config.json") == facts
