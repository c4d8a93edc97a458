"""What a run folder holds: the only code that knows what one looks like.

Training makes a run folder and fills it; evaluation reads it back. Each file is there whole or
not at all.

    runs/<time>-<backbone>/
        config.json       settings, data and weights taken, versions, command (`facts.py`)
        history.csv       one row an epoch, both phases
        model.keras       the trained classifier
        learning_curves.png
        README.md         the model card (`transfer evaluate --report` adds the test images)
        summary.json      written last: its presence means the run is finished
        data.npz          the images, where they were arrays of the caller's
        logs/             TensorBoard
        checkpoints/      while it trains: what `transfer train --resume` goes on from
        lock              held by the process that trains
        predictions.npz   y_true and y_prob on the test images (`transfer evaluate`)
        validation_predictions.npz, flipped_predictions.npz
                          the same of the validation images (--report), and of the test
                          images mirrored left to right (--tta)
        calibration.json  temperature and threshold of "unknown" (--report, `transfer predict`)
        known_images.npz  where the training images lie among features, for "none of these"
        search_index.npz  the features of a catalogue (`transfer search --index`)
        exports/          models for other runtimes (`transfer export`)
        report/           report.md, report.html, metrics.json, predictions.csv, pictures
"""

from pathlib import Path

RUNS_FOLDER = Path("runs")

CONFIG = "config.json"
HISTORY = "history.csv"
MODEL = "model.keras"
SUMMARY = "summary.json"
CURVES = "learning_curves.png"
DATA = "data.npz"
LOGS = "logs"
CHECKPOINTS = "checkpoints"
LOCK = "lock"
PREDICTIONS = "predictions.npz"
VALIDATION_PREDICTIONS = "validation_predictions.npz"
FLIPPED_PREDICTIONS = "flipped_predictions.npz"
CALIBRATION = "calibration.json"
KNOWN_IMAGES = "known_images.npz"
SEARCH_INDEX = "search_index.npz"
EXPORTS = "exports"
VERIFICATION = "verification.json"  # in the folder of an export
REPORT = "report"
CARD = "README.md"

OF_TRAINING = (CONFIG, HISTORY, MODEL, CURVES, CARD, SUMMARY, DATA, LOCK)  # beside two folders
