"""What the audit found, told: a summary in the terminal, and a folder of lists and pictures."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from transfer import console
from transfer.auditing.findings import PARTS, Findings, Images
from transfer.auditing.label_errors import LEAST_IMAGES, LabelErrors
from transfer.errors import InputError, printable
from transfer.formatting import format_percent
from transfer.plots import charts, style
from transfer.storage.atomic import write_atomically
from transfer.storage.csv_text import csv_text

AUDIT_FILE = "audit.json"
MOST_LINES = 10  # of unreadable files in the terminal


def summarise(images: Images, findings: Findings, errors: LabelErrors | None) -> dict[str, Any]:
    """Returns the numbers of an audit as JSON values."""
    crosses, pairs = findings.crosses(images), findings.duplicates
    twins = np.concatenate([pairs.first[crosses], pairs.second[crosses]])
    leaked = np.unique(twins[images.parts[twins] == "test"])
    return {
        "num_images": {part: int(counts.sum()) for part, counts in findings.class_counts.items()},
        "unreadable": images.unreadable,
        "passed_over": dict(Counter(printable(one.reason) for one in images.passed_over)),
        "class_counts": {
            part: dict(zip(images.class_names, counts.tolist(), strict=True))
            for part, counts in findings.class_counts.items()
        },
        "low_contrast": len(findings.low_contrast),
        "odd_images": {kind: len(odd.indices) for kind, odd in findings.odd.items()},
        "duplicates": {
            "exact_pairs": int(findings.is_exact.sum()),
            "near_pairs": int((~findings.is_exact).sum()),
            "pairs_across_parts": int(crosses.sum()),
            "pairs_with_different_labels": int(findings.disagrees(images).sum()),
            "test_images_also_in_other_parts": len(leaked),
        },
        "label_errors": errors
        and {
            "num_judged": errors.num_judged,
            "num_doubted": len(errors.indices),
            "out_of_fold_accuracy": errors.accuracy,
        },
    }


def print_audit(summary: Mapping[str, Any]) -> None:
    """Prints what `summarise` returned, a line or two for each kind of finding."""
    counts = ", ".join(f"{count:,} {part}" for part, count in summary["num_images"].items())
    lines = [("Images", counts), ("Unreadable files", f"{len(summary['unreadable']):,}")]
    shown = summary["unreadable"][:MOST_LINES]
    lines += [("", line) for line in shown]
    if len(summary["unreadable"]) > len(shown):
        lines.append(("", "and others: unreadable.csv"))
    reasons = [f"{count:,} {reason}" for reason, count in summary["passed_over"].items()]
    lines.append(("Passed over", ", ".join(reasons) or "nothing"))
    for part, classes in summary["class_counts"].items():
        lines.append((f"Classes, {part}", _balance_sentence(classes)))
    lines.append(("Too little contrast", f"{summary['low_contrast']:,} images"))
    odd = ", ".join(f"{count:,} {kind}" for kind, count in summary["odd_images"].items())
    lines.append(("Hard to see, or odd", odd))
    found = summary["duplicates"]
    lines += [
        ("Exact duplicates", f"{found['exact_pairs']:,} pairs"),
        ("Near duplicates", f"{found['near_pairs']:,} pairs"),
        ("Of both, across parts", f"{found['pairs_across_parts']:,} pairs"),
        ("With different labels", f"{found['pairs_with_different_labels']:,} pairs"),
    ]
    if "test" in summary["num_images"]:
        leaked = found["test_images_also_in_other_parts"]
        lines.append(("Test images seen before", f"{leaked:,} have a twin in another part"))
    lines.append(("Likely label errors", _label_sentence(summary["label_errors"])))
    for name, text in lines:
        console.say(Text(f"{name:<26}{text}"))


def _balance_sentence(classes: Mapping[str, int]) -> str:
    smallest = min(classes, key=lambda name: classes[name])
    largest = max(classes, key=lambda name: classes[name])
    if classes[smallest] == classes[largest]:
        return f"{len(classes):,} classes of {classes[largest]:,} images each"
    return (
        f"{len(classes):,} classes of {classes[smallest]:,} ({smallest}) to {classes[largest]:,} "
        f"({largest}) images"
    )


def _label_sentence(errors: Mapping[str, Any] | None) -> str:
    if errors is None:
        return f"not looked for: two classes of at least {LEAST_IMAGES} images are needed"
    return (
        f"{errors['num_doubted']:,} of {errors['num_judged']:,}, the likeliest first; the "
        f"classifier that doubts them is right on {format_percent(errors['out_of_fold_accuracy'])}"
    )


def write_audit(
    out: Path,
    facts: Mapping[str, Any],
    images: Images,
    findings: Findings,
    errors: LabelErrors | None,
) -> dict[str, Any]:
    """Writes an audit's folder: audit.json, a CSV for each kind of finding, and pictures.

    Args:
        out: the folder; made where it is missing. Older files of an audit are replaced.
        facts: JSON values for the head of audit.json.
        images: what was looked at.
        findings: what was found.
        errors: labels to doubt, or None where they were not looked for.

    Returns:
        What `summarise` returned.

    Raises:
        InputError: the folder cannot be made or written.
    """
    summary = summarise(images, findings, errors)
    files = {
        "unreadable.csv": csv_text(["file"], ([line] for line in images.unreadable)),
        "passed_over.csv": csv_text(
            ["file", "reason"], (list(map(printable, one)) for one in images.passed_over)
        ),
        "low_contrast.csv": _low_contrast_csv(images, findings),
        "odd_images.csv": _odd_csv(images, findings),
        "duplicates.csv": _duplicates_csv(images, findings),
        "label_errors.csv": _label_errors_csv(images, errors),
        **_pictures(images, findings, errors),
        AUDIT_FILE: json.dumps({**facts, **summary}, indent=2, ensure_ascii=False) + "\n",
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if content is None:
                (out / name).unlink(missing_ok=True)  # of an audit before this one
            else:
                write_atomically(out / name, content)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written: {error.strerror}; name another --out."
        ) from error
    return summary


def _identity(images: Images, index: int) -> list[str]:
    return [images.parts[index], images.names[index], _class_name(images, index)]


def _place(images: Images, index: int) -> str:
    # "train 17"; the path of a file says its part already, where it has one.
    name = images.names[index]
    return f"{images.parts[index]} {name}" if name.isdigit() else name


def _class_name(images: Images, index: int) -> str:
    return images.class_names[images.labels[index]]


def _low_contrast_csv(images: Images, findings: Findings) -> str:
    rows = (
        [*_identity(images, index), float(contrast)]
        for index, contrast in zip(findings.low_contrast, findings.contrast, strict=True)
    )
    return csv_text(["part", "image", "label", "contrast"], rows)


def _odd_csv(images: Images, findings: Findings) -> str:
    rows = (
        [kind, round(float(value), 4), *_identity(images, index)]
        for kind, odd in findings.odd.items()
        for index, value in zip(*odd, strict=True)
    )
    return csv_text(["kind", "measure", "part", "image", "label"], rows)


def _duplicates_csv(images: Images, findings: Findings) -> str:
    columns = ["kind", "difference", "part", "image", "label"]
    rows = (
        [
            "exact" if is_exact else "near",
            round(float(difference), 3),
            *_identity(images, first),
            *_identity(images, second),
        ]
        for first, second, difference, is_exact in zip(
            *findings.duplicates, findings.is_exact, strict=True
        )
    )
    return csv_text(columns + ["other part", "other image", "other label"], rows)


def _label_errors_csv(images: Images, errors: LabelErrors | None) -> str:
    columns = ["part", "image", "label", "suggested", "probability of label"]
    if errors is None:
        return csv_text(columns, [])
    rows = (
        [*_identity(images, index), images.class_names[suggested], float(credibility)]
        for index, suggested, credibility in zip(
            errors.indices, errors.suggested, errors.credibility, strict=True
        )
    )
    return csv_text(columns, rows)


def _pictures(
    images: Images, findings: Findings, errors: LabelErrors | None
) -> dict[str, bytes | None]:
    # None for a picture with nothing to show.

    counts = {part: findings.class_counts[part] for part in PARTS if part in findings.class_counts}
    crosses = findings.crosses(images)
    return {
        "class_balance.png": style.png(charts.plot_class_distribution(counts, images.class_names)),
        "low_contrast.png": _low_contrast_picture(images, findings),
        "odd_images.png": _odd_picture(images, findings),
        "duplicates_across_parts.png": _pairs_picture(images, findings, crosses, "across parts"),
        "duplicates_within_a_part.png": _pairs_picture(images, findings, ~crosses, "within a part"),
        "label_errors.png": _label_errors_picture(images, errors),
    }


def _heading(what: str, shown: int, total: int, how: str) -> str:
    return f"{what}: {min(shown, total):,} of {total:,}, {how}"


def _low_contrast_picture(images: Images, findings: Findings) -> bytes | None:
    from transfer.plots.galleries import MOST_SHOWN, plot_gallery

    total = len(findings.low_contrast)
    if not total:
        return None
    chosen = findings.low_contrast[:MOST_SHOWN]
    captions = [f"{_place(images, index)}\n{_class_name(images, index)}" for index in chosen]
    title = _heading("Too little contrast", MOST_SHOWN, total, "the emptiest first")
    return style.png(plot_gallery(title, images.pixels[chosen], captions))


def _odd_picture(images: Images, findings: Findings) -> bytes | None:
    from transfer.plots.galleries import MOST_SHOWN, plot_gallery

    each = [(kind, index) for kind, odd in findings.odd.items() for index in odd.indices]
    if not each:
        return None
    # The first of each kind, then the second of each: none crowds out the others.
    rank = np.concatenate([np.arange(len(odd.indices)) for odd in findings.odd.values()])
    shown = [each[number] for number in np.argsort(rank, kind="stable")[:MOST_SHOWN]]
    captions = [f"{_place(images, index)}\n{kind}" for kind, index in shown]
    title = _heading("Hard to see, or odd", MOST_SHOWN, len(each), "the oddest of each kind first")
    return style.png(plot_gallery(title, images.pixels[[index for _, index in shown]], captions))


def _pairs_picture(
    images: Images, findings: Findings, wanted: np.ndarray, where: str
) -> bytes | None:
    from transfer.plots.galleries import MOST_SHOWN, plot_pairs

    total, most = int(wanted.sum()), MOST_SHOWN // 2
    if not total:
        return None
    first, second, difference = (column[wanted][:most] for column in findings.duplicates)
    captions = [
        f"{_place(images, one)}: {_class_name(images, one)}\n"
        f"{_place(images, other)}: {_class_name(images, other)}\n"
        f"difference {apart:.1f} of 255"
        for one, other, apart in zip(first, second, difference, strict=True)
    ]
    title = _heading(f"Duplicates {where}", most, total, "the most similar first")
    figure = plot_pairs(title, images.pixels[first], images.pixels[second], captions)
    return style.png(figure)


def _label_errors_picture(images: Images, errors: LabelErrors | None) -> bytes | None:
    from transfer.plots.galleries import MOST_SHOWN, plot_gallery

    if errors is None or not len(errors.indices):
        return None
    chosen = errors.indices[:MOST_SHOWN]
    captions = [
        f"{_place(images, index)}\nlabel: {_class_name(images, index)}\n"
        f"rather: {images.class_names[suggested]}"
        for index, suggested in zip(chosen, errors.suggested, strict=False)
    ]
    total = len(errors.indices)
    title = _heading("Likely label errors", MOST_SHOWN, total, "the likeliest first")
    return style.png(plot_gallery(title, images.pixels[chosen], captions))
