"""A run's model card: what a stranger must know of the model, in the form that model hubs read.

The head is YAML as https://huggingface.co/docs/hub/model-cards describes it; the text says the
same for people. A card is made to be published, so no path of this machine stands in it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from transfer.data.sources import FASHION_MNIST, SAMPLE
from transfer.evaluation import page
from transfer.formatting import format_percent

# The data sets that hubs know; the sample is a part of one.
HUB_NAMES = dict.fromkeys((FASHION_MNIST, SAMPLE), "zalando-datasets/fashion_mnist")
START = {
    "none": "from scratch",
    "imagenet": "from ImageNet weights",
    "bundled": "from weights learnt from fractals",
    "fashion": "from weights learnt from Fashion-MNIST",
    "file": "from weights in a file of the user's",
}
# What YAML reads as a string without quotes; true, null and their kin it would not.
_PLAIN_WORD = re.compile(r"(?!(true|false|null|yes|off)$)[a-z][a-z0-9]{2,}([-_/][a-z0-9]+)*")


def model_card(
    run_name: str,
    facts: Mapping[str, Any],
    summary: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> str:
    """Returns README.md of a run folder: YAML between two lines of dashes, then Markdown.

    Args:
        run_name: what the model is called.
        facts: the content of the run's config.json.
        summary: the content of the run's summary.json.
        metrics: what `compute_metrics` returned for its test images; None before they were read.
        calibration: what `measure_calibration` returned for them.
    """
    is_tested = metrics is not None and calibration is not None
    results = _results(metrics, calibration) if is_tested else _validation_results(summary)
    values = _metadata(facts) | (_tested_metadata(run_name, facts, metrics) if is_tested else {})
    body = page.to_markdown(run_name, _blocks(facts, results, _limits(metrics)))
    head = "\n".join(_yaml(values))
    return f"---\n{head}\n---\n\n{body}"


def _metadata(facts: Mapping[str, Any]) -> dict[str, Any]:
    data, backbone = facts["data"]["name"], facts["settings"]["backbone"]
    return {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "transfer-learning", "keras", backbone],
        # A hub takes the name of a user's own folder for somebody else's data set.
        **({"datasets": [HUB_NAMES[data]]} if data in HUB_NAMES else {}),
    }


def _tested_metadata(
    run_name: str, facts: Mapping[str, Any], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    data = facts["data"]["name"]
    tested_on = f"{data}, {metrics['num_images']:,} test images"  # a part is not the whole
    values = {"accuracy": metrics["accuracy"], "f1": metrics["f1_macro"]}
    names = {"accuracy": "accuracy", "f1": "macro F1"}
    result = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": HUB_NAMES.get(data, data), "name": tested_on, "split": "test"},
        "metrics": [
            {"type": kind, "value": value, "name": names[kind]} for kind, value in values.items()
        ],
    }
    return {
        "metrics": list(values),
        "model-index": [{"name": run_name, "results": [result]}],
    }


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Returns lines of YAML of nested dicts and lists."""
    lines = []
    for item in value.items() if isinstance(value, dict) else value:
        key, inner = (f"{item[0]}:", item[1]) if isinstance(value, dict) else ("-", item)
        if not isinstance(inner, (dict, list)):
            lines.append(f"{indent}{key} {_yaml_scalar(inner)}")
        elif key == "-":
            first, *others = _yaml(inner, f"{indent}  ")
            lines += [f"{indent}- {first.lstrip()}", *others]
        else:
            lines += [f"{indent}{key}", *_yaml(inner, f"{indent}  ")]
    return lines


def _yaml_scalar(value: str | float) -> str:
    # JSON is YAML too, so no name can break the head; plain words read better.
    is_word = isinstance(value, str) and _PLAIN_WORD.fullmatch(value)
    return value if is_word else json.dumps(value, ensure_ascii=False)


Items = list[tuple[str, page.Text]]  # each with its name


def _blocks(facts: Mapping[str, Any], results: Items, limits: Items) -> list[page.Block]:
    settings, data = facts["settings"], facts["data"]
    size, names = settings["image_size"], data["class_names"]
    return [
        page.Paragraph(
            f"An image classifier for {len(names)} classes: {settings['backbone']} at {size} "
            f"pixels, trained {START[facts['weights']['name']]} on {data['name']}."
        ),
        page.Heading("Classes"),
        page.Paragraph(", ".join(f"{number} {name}" for number, name in enumerate(names))),
        page.Heading("Results"),
        page.Bullets(results),
        page.Heading("Use"),
        page.Code(
            "import keras\n\n"
            'model = keras.models.load_model("model.keras")\n'
            f"y_prob = model.predict(images)  # float32 (N, {len(names)})\n"
        ),
        page.Paragraph(
            f"Images are float32 (N, {size}, {size}, 3) with values 0 to 255; scaling is part of "
            "the model. Gray images are repeated in all three channels."
        ),
        page.Heading("Training"),
        page.Bullets([(name, str(count)) for name, count in _training(facts).items()]),
        page.Heading("Limits"),
        page.Bullets(limits),
    ]


def _validation_results(summary: Mapping[str, Any]) -> Items:
    last = list(summary["phases"].values())[-1]
    return [
        (
            "accuracy on the validation images, which chose the epoch",
            format_percent(last["val_accuracy"]),
        ),
        ("", "The test images have not been read yet; `evaluate.py --report` adds what they say."),
    ]


def _results(metrics: Mapping[str, Any], calibration: Mapping[str, Any]) -> Items:
    low, high = metrics["accuracy_interval"]
    errors = [calibration[key]["expected_calibration_error"] for key in ("before", "after")]
    return [
        (
            "accuracy",
            f"{format_percent(metrics['accuracy'])} on {metrics['num_images']:,} test images, "
            f"95 % Wilson interval {100 * low:.2f} to {100 * high:.2f} %",
        ),
        ("macro F1", format_percent(metrics["f1_macro"])),
        ("loss (mean cross-entropy)", f"{metrics['loss']:.4f}"),
        (
            "expected calibration error",
            f"{format_percent(errors[0])}; with temperature {calibration['temperature']:.3f} "
            f"{format_percent(errors[1])}",
        ),
    ]


def _training(facts: Mapping[str, Any]) -> dict[str, str]:
    settings = facts["settings"]
    counts = facts["data"]["num_images"]
    return {
        "images": ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        "optimizer": settings["optimizer"],
        "batch size": settings["batch_size"],
        "seed": settings["seed"],
        "number format": facts["precision"],
        "versions": ", ".join(f"{name} {value}" for name, value in facts["versions"].items()),
    }


def _limits(metrics: Mapping[str, Any] | None) -> Items:
    confused = [
        (
            "",
            f"{pair['true']} is taken for {pair['predicted']} in {share:.1f} % of its test images.",
        )
        for pair in (metrics["most_confused"][:3] if metrics else ())
        for share in [100 * pair["share_of_true"]]
    ]
    return [
        ("", "The model names one of its classes for every image, also for one of none of them."),
        ("", "The numbers hold for images like the test images; other images were not tried."),
        *confused,
    ]
