"""The model card: a head that model hubs read, a text that says the same."""

import dataclasses
import re

import numpy as np
import pytest
import yaml

from tests.conftest import make_facts, printed
from transfer.config import Config
from transfer.evaluation.calibration import fit_calibration, measure_calibration
from transfer.evaluation.metrics import compute_metrics
from transfer.models.counts import NetworkCounts
from transfer.report import document
from transfer.report.card import START, model_card
from transfer.report.network import network_section
from transfer.runs.facts import DataFacts, Facts, PhaseSummary, Summary, WeightsFacts

NAMES = ["T-shirt/top", "yes: no", "#3"]


SUMMARY = Summary(
    {"head": PhaseSummary(2, 1, 1.0, 0.5, 1.0), "fine-tune": PhaseSummary(2, 1, 1.0, 0.875, 1.0)},
    3.0,
)


def make_card(run_name="mobilenet", data="fashion-mnist", weights="imagenet", tested=True):
    y_true = np.arange(30) % 3
    y_prob = np.eye(3)[y_true] * 0.7 + 0.1
    y_prob[:3] = np.roll(y_prob[:3], 1, axis=1)
    facts = Facts(
        Config(),
        Config(),
        DataFacts(
            data,
            "/home/somebody/photos",
            "photos from /home/somebody/photos",
            tuple(NAMES),
            {"train": 54_000, "validation": 6_000, "test": 30},
            {},
        ),
        WeightsFacts(weights, "weights from /home/somebody/w.h5"),
        "float32",
        {"keras": "3.15"},
    )
    metrics = compute_metrics(y_true, y_prob, NAMES)
    measured = measure_calibration(fit_calibration(y_true, y_prob), y_true, y_prob)
    results = (metrics, measured) if tested else ()
    return model_card(run_name, facts, SUMMARY, *results)


def head_of(card):
    start, head, _ = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    assert start == ""
    return yaml.safe_load(head)


def test_the_head_is_what_model_hubs_read():
    card = make_card()
    assert card.startswith("---\nlibrary_name: keras\npipeline_tag: image-classification\ntags:\n")
    head = head_of(card)
    assert {"image-classification", "keras", "mobilenetv2"} <= set(head["tags"])
    assert head["datasets"] == ["zalando-datasets/fashion_mnist"]
    assert head["metrics"] == ["accuracy", "f1"]
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert model["name"] == "mobilenet"
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"]["type"] == "zalando-datasets/fashion_mnist"
    assert result["dataset"]["name"] == "fashion-mnist, 30 test images"
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [
        ("accuracy", 0.9),
        ("f1", pytest.approx(0.9)),
    ]


def test_own_data_is_not_taken_for_a_data_set_of_the_hub():
    head = head_of(make_card(data="photos"))
    assert "datasets" not in head
    assert head["model-index"][0]["results"][0]["dataset"]["type"] == "photos"


@pytest.mark.parametrize("name", ["true", "a: b # c", "- x", 'say "hi"', "123", "---", "Größe 🙂"])
def test_no_name_of_a_run_breaks_the_head(name):
    assert head_of(make_card(run_name=name))["model-index"][0]["name"] == name


def test_the_text_says_how_good_and_how_to_use_and_no_path_of_the_machine():
    card = make_card()
    assert "- **accuracy:** 90.00 % on 30 test images, 95 % interval 74.38 to 96.54 %" in card
    assert 'keras.models.load_model("model.keras")' in card
    assert "(N, 96, 96, 3) with values 0 to 255" in card
    assert "from ImageNet weights" in card and "54,000 train" in card
    assert "0 T-shirt/top, 1 yes: no, 2 \\#3" in card
    assert "yes: no is taken for \\#3 in 10.0 % of its test images." in card
    assert "/home" not in card and "/home" not in make_card(weights="file")


@pytest.mark.parametrize("weights", ["none", "imagenet", "photos", "bundled", "fashion", "file"])
def test_every_start_of_a_training_has_words(weights):
    assert START[weights] in make_card(weights=weights)


def test_the_network_stands_in_a_table_and_its_parameters_once():
    facts = make_facts(Config(), command="x", **NETWORK)
    card = model_card("mobilenet", facts, SUMMARY)
    assert "| head | 1 | 20 | 0.1 kB | 18 |\n| together | 5 | 2,020 | 8.1 kB | 10,018 |" in card
    assert (
        "Of the 2,020 parameters the head phase trains 20 (0.99 %), the fine-tune phase "
        "trains 1,980 (98.02 %)." in card
    )
    assert "**parameters:**" not in card
    counts = dataclasses.replace(facts.counts, trained={})
    assert "trains" not in printed(document.show, network_section(counts))


NETWORK = {
    "network": NetworkCounts(4, 2_000, 10_000),
    "head": NetworkCounts(1, 20, 18),
    "trained": {"head": 20, "fine-tune": 1_980},
}


def test_before_the_test_images_are_read_the_card_says_so():
    text = make_card(tested=False)
    head = text.split("---")[1]
    assert "model-index" not in head and "library_name: keras" in head
    assert "87.50 %" in text and "50.00 %" not in text
    assert "have not been read yet" in text and "95 %" not in text
