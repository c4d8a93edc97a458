"""Recomputes a report's numbers from its predictions.csv, with nothing of the package.

    python -m tools.recompute_report runs/first/report

Only the standard library and NumPy are used, and what each number means is written out once more.
Read besides predictions.csv are the temperature and the threshold, which were fitted on other
images, and the numbers to compare with: metrics.json, report.md, report.html, and in the folder of
the run calibration.json, history.csv and the model card.
"""

import csv
import html
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

Z = 1.959963984540054  # 95 % of a normal distribution lie within so many deviations
BINS = 15
SMALLEST = 1e-7  # of probabilities in the loss
TINY = float(np.finfo(np.float32).tiny)


def read_predictions(path):
    """Returns class names, y_true (N,), y_prob (N, C) and the rows as dicts of texts."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [
            {name: original(cell) for name, cell in row.items()} for row in csv.DictReader(file)
        ]
    names = [column[2:] for column in rows[0] if column.startswith("p ")]
    y_true = [names.index(row["true"]) for row in rows]
    y_prob = [[float(row["p " + name]) for name in names] for row in rows]
    return names, np.array(y_true), np.array(y_prob), rows


def original(cell):
    """Returns a cell without the apostrophe that keeps a spreadsheet from computing it."""
    return re.sub("^'(?='*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])", "", cell)


def wilson(correct, total):
    """Returns the interval of E. B. Wilson (1927) of a share."""
    share, width = correct / total, 2 * (total + Z**2)
    centre = (2 * total * share + Z**2) / width
    delta = Z / width * math.sqrt(4 * total * share * (1 - share) + Z**2)
    low = 0.0 if correct == 0 else centre - delta
    high = 1.0 if correct == total else centre + delta
    return [low, high]


def losses_of(y_true, y_prob):
    """Returns the cross-entropy of each image."""
    pairs = zip(y_prob.tolist(), y_true.tolist(), strict=True)
    return [-math.log(min(max(row[true], SMALLEST), 1.0)) for row, true in pairs]


def middle_95_percent(values):
    """Returns the percentiles 2.5 and 97.5."""
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]


def interval_of_mean(values):
    """Returns the bootstrap interval: means of 1,000 resamples, drawn 50 at a time, seed 0."""
    values, generator = np.array(values), np.random.default_rng(0)
    draws = [generator.integers(len(values), size=(50, len(values))) for _ in range(20)]
    return middle_95_percent(np.concatenate([values[draw].mean(axis=1) for draw in draws]))


def macro_f1_of(matrix):
    """Returns the mean F1 over the classes that occur."""
    both = matrix.sum(axis=1) + matrix.sum(axis=0)
    f1 = 2 * np.diag(matrix) / np.maximum(both, 1)
    return f1[matrix.sum(axis=1) > 0].mean()


def interval_of_macro_f1(matrix):
    """Returns the bootstrap interval: cells of 1,000 resampled matrices, drawn at once, seed 0."""
    cells = matrix.ravel()
    filled = np.flatnonzero(cells)
    shares = cells[filled] / cells.sum()
    draws = np.random.default_rng(0).multinomial(cells.sum(), shares, size=1000)
    resampled = np.zeros((1000, cells.size), int)
    resampled[:, filled] = draws
    return middle_95_percent([macro_f1_of(one.reshape(matrix.shape)) for one in resampled])


def calibration_error(confidence, is_right):
    """Returns the mean distance between confidence and accuracy, over 15 bins."""
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    distances = []
    for number in range(BINS):
        inside = bins == number
        if inside.any():
            gap = sum(confidence[inside].tolist()) / inside.sum() - is_right[inside].mean()
            distances.append(abs(gap) * inside.sum())
    return sum(distances) / len(confidence)


def confidence_numbers(y_true, y_prob):
    """Returns what a report's table of calibration says of probabilities."""
    confidence, is_right = y_prob.max(axis=1), y_prob.argmax(axis=1) == y_true
    return {
        "expected_calibration_error": calibration_error(confidence, is_right),
        "mean_confidence": confidence.mean(),
        "loss": math.fsum(losses_of(y_true, y_prob)) / len(y_true),
    }


def with_temperature(y_prob, temperature):
    """Returns softmax(log(p) / temperature)."""
    logits = np.log(np.maximum(y_prob, TINY)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def answered_numbers(y_true, y_prob, threshold):
    """Returns what comes of answering from a confidence on."""
    if threshold is None:
        return None
    answered = y_prob.max(axis=1) >= threshold
    correct = int((y_prob.argmax(axis=1) == y_true)[answered].sum())
    total = int(answered.sum())
    return {
        "num_images": total,
        "share": total / len(y_true),
        "accuracy": correct / total if total else None,
        "accuracy_interval": wilson(correct, total) if total else None,
    }


def class_numbers(matrix, names):
    """Returns precision, recall, F1 and support of each class; 0 where nothing can be divided."""
    rows = []
    for number, name in enumerate(names):
        right, true = int(matrix[number, number]), int(matrix[number].sum())
        predicted = int(matrix[:, number].sum())
        rows.append(
            {
                "class_name": name,
                "precision": right / predicted if predicted else 0.0,
                "recall": right / true if true else 0.0,
                "f1": 2 * right / (true + predicted) if true + predicted else 0.0,
                "support": true,
            }
        )
    return rows


def confused_numbers(matrix, names):
    """Returns the ten pairs with the most mistakes; of equal ones the first in order of classes."""
    pairs = [
        {
            "true": names[true],
            "predicted": names[other],
            "count": int(matrix[true, other]),
            "share_of_true": matrix[true, other] / matrix[true].sum(),
        }
        for true in range(len(names))
        for other in range(len(names))
        if true != other and matrix[true, other]
    ]
    return sorted(pairs, key=lambda pair: -pair["count"])[:10]


def recompute(names, y_true, y_prob, temperature, threshold):
    """Returns the numbers of metrics.json that come from predictions alone."""
    predicted, losses = y_prob.argmax(axis=1), losses_of(y_true, y_prob)
    correct, total = int((predicted == y_true).sum()), len(y_true)
    matrix = np.zeros((len(names), len(names)), int)
    np.add.at(matrix, (y_true, predicted), 1)
    classes = class_numbers(matrix, names)
    macro = {
        f"{key}_macro": np.mean([row[key] for row in classes if row["support"]])
        for key in ("precision", "recall", "f1")
    }
    calibrated = None if temperature is None else with_temperature(y_prob, temperature)
    return macro | {
        "accuracy": correct / total,
        "accuracy_interval": wilson(correct, total),
        "loss": math.fsum(losses) / total,
        "loss_interval": interval_of_mean(losses),
        "f1_macro_interval": interval_of_macro_f1(matrix),
        "per_class": classes,
        "confusion_matrix": matrix.tolist(),
        "most_confused": confused_numbers(matrix, names),
        "num_images": total,
        "calibration": {
            "before": confidence_numbers(y_true, y_prob),
            "after": None if calibrated is None else confidence_numbers(y_true, calibrated),
            "answered": answered_numbers(y_true, calibrated, threshold),
        },
    }


def compare(found, expected, path=""):
    """Yields (name, number recomputed, number reported, do they agree) of nested values."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from compare(value, (expected or {}).get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(found, list):
        same_length = isinstance(expected, list) and len(found) == len(expected)
        for number, value in enumerate(found):
            other = expected[number] if same_length else None
            yield from compare(value, other, f"{path}[{number}]")
    else:
        yield path, found, expected, agree(found, expected)


def agree(found, expected):
    """Says whether two values are the same, numbers to 13 significant digits.

    The 16th depends on the order in which a mean is added up.
    """
    if isinstance(found, (bool, str, type(None), int)):
        return found == expected
    return isinstance(expected, (int, float)) and math.isclose(found, expected, rel_tol=1e-13)


def confidence_columns(y_prob, rows, temperature):
    """Returns what agrees of the two columns of confidences, lines as those of `compare`."""
    columns = {"confidence": y_prob.max(axis=1).tolist(), "calibrated_confidence": []}
    if temperature is not None:
        columns["calibrated_confidence"] = (
            with_temperature(y_prob, temperature).max(axis=1).tolist()
        )
    lines = []
    for name, found in columns.items():
        reported = [float(row[name]) for row in rows if row[name]]
        same = len(found) == len(reported) and all(map(agree, found, reported))
        lines.append((f"the column {name}", found, reported, same))
    return lines


def threshold_words(calibration):
    """Returns words that every page must have of the threshold, and of which confidence it is."""
    if calibration["temperature"] is None:
        return ["No temperature and no threshold were fitted"]
    if calibration["threshold"] is None:
        return ["No calibrated confidence reached 99 % accuracy"]
    return [
        f"from a calibrated confidence of {100 * calibration['threshold']:.2f} % on",
        "calibrated_confidence in predictions.csv",
        f"answers {100 * calibration['answered']['share']:.2f} % of the test images"
        if calibration["answered"]["num_images"]
        else "answers none of the test images",
    ]


def phase_words(run_dir):
    """Returns words that a report must have of each phase, from history.csv."""
    with open(run_dir / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    words = []
    for phase in dict.fromkeys(row["phase"] for row in rows):
        own = [row for row in rows if row["phase"] == phase]
        kept = min(own, key=lambda row: float(row["val_loss"]))
        highest = max(own, key=lambda row: float(row["val_accuracy"]))
        accuracy = f"{100 * float(kept['val_accuracy']):.2f} %"
        words.append(
            f"weights of epoch {kept['epoch']}, which has the lowest validation loss, "
            f"{float(kept['val_loss']):.4f}, and validation accuracy {accuracy}"
        )
        if float(highest["val_accuracy"]) > float(kept["val_accuracy"]):
            share = f"{100 * float(highest['val_accuracy']):.2f} %"
            words.append(f"highest validation accuracy was {share}, in epoch {highest['epoch']}")
    return words


def network_words(run_dir):
    """Returns words that a card must have of the network, from config.json and summary.json."""
    facts = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    if "head" not in facts:  # of an older run
        return []
    parts = [facts["network"], facts["head"]]
    layers, multiply_adds = (sum(p[name] for p in parts) for name in ("layers", "multiply_adds"))
    total = summary["num_parameters"]
    size = f"{total * 4 / 1e6:.1f} MB" if total * 4 >= 1e6 else f"{total * 4 / 1e3:.1f} kB"
    shares = [
        f"the {phase} phase trains {count:,} ({100 * count / total:.2f} %)"
        for phase, count in facts["trained"].items()
    ]
    return [f"| together | {layers:,} | {total:,} | {size} | {multiply_adds:,} |", *shares]


def plain_text(path):
    """Returns the words of a page, Markdown's escapes and HTML's tags taken away."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        return " ".join(html.unescape(re.sub("<[^>]*>", "", text)).split())
    return " ".join(re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", text).split())


def check_pages(report_dir, calibration, accuracy, total):
    """Yields lines as those of `compare`: what each rendering of the report must say."""
    report, page = report_dir / "report.md", report_dir / "report.html"
    card = report_dir.parent / "README.md"
    words = {path: threshold_words(calibration) for path in (report, page, card)}
    words[card] = words[card] + network_words(report_dir.parent)
    for path in (report, page):
        words[path] = words[path] + phase_words(report_dir.parent)
        words[path].append(f"{100 * accuracy:.2f} % of {total:,} test images are right")
    words[report] = [f"**accuracy:** **{100 * accuracy:.2f} %**", *words[report]]
    words[page] = [f"accuracy: {100 * accuracy:.2f} %", *words[page]]
    for path, expected in words.items():
        text = plain_text(path)
        for one in expected:
            yield path.name, one, "no such words", one in text


def check_report(report_dir):
    """Returns the lines of `compare` for a report folder, and of what its pages say."""
    names, y_true, y_prob, rows = read_predictions(report_dir / "predictions.csv")
    metrics = json.loads((report_dir / "metrics.json").read_text(encoding="utf-8"))
    calibration = metrics["calibration"]
    fitted = json.loads((report_dir.parent / "calibration.json").read_text(encoding="utf-8"))
    fitted.pop("sha256")  # of the model and the images that it was fitted with
    found = recompute(names, y_true, y_prob, calibration["temperature"], calibration["threshold"])
    lines = list(compare(found, metrics)) + list(compare(fitted, calibration, "calibration.json"))
    best = [names[number] for number in y_prob.argmax(axis=1)]
    predicted = [row["predicted"] for row in rows]
    lines.append(("the column predicted", best, predicted, best == predicted))
    lines += confidence_columns(y_prob, rows, calibration["temperature"])
    is_of = calibration["threshold_of"]
    lines.append(("threshold_of", "calibrated_confidence", is_of, is_of == "calibrated_confidence"))
    return lines + list(check_pages(report_dir, calibration, found["accuracy"], len(rows)))


def main(report_dirs):
    """Prints what does not agree; returns the exit code."""
    failed = False
    for report_dir in map(Path, report_dirs):
        lines = check_report(report_dir)
        wrong = [line for line in lines if not line[-1]]
        for name, found, expected, _ in wrong:
            print(f"{report_dir}: {name} is {found!r} recomputed, {expected!r} reported")
        same = sum(found == expected for _, found, expected, _ in lines)
        print(f"{report_dir}: {len(lines) - len(wrong)} of {len(lines)} agree, {same} bit by bit")
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
