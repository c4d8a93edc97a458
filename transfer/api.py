"""The door for Python and notebooks: the same walk as the commands, by functions.

    run = transfer.train(data="photos", finetune_epochs=3)
    run.evaluate()
    run.report()

Settings have the names of the options, with underscores. Images may be paths or arrays. Nothing
is printed unless `verbose=True`; an error is an `InputError` in the words of Python.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer import console
from transfer.backend import load_keras
from transfer.config import Config
from transfer.data.splits import Loaded
from transfer.deploy.choices import INCLUDED
from transfer.errors import InputError, Interrupted, as_arguments
from transfer.runs import files

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

    from transfer.deploy.classifiers import Classifier
    from transfer.deploy.export import Export
    from transfer.deploy.predict import Answer
    from transfer.evaluation.evaluated import EvaluatedRun
    from transfer.runs.finished import FinishedRun

Images = str | Path | tuple | Mapping[str, Any]  # what a data set may be given as
MINUTE = 60


@contextlib.contextmanager
def _python_door(verbose: bool) -> Iterator[None]:
    """Speaks only where asked to, and tells errors as Python names things."""
    try:
        with console.speaking(quiet=not verbose):
            yield
    except InputError as error:
        raise InputError(as_arguments(str(error))) from error
    except Interrupted as error:
        raise KeyboardInterrupt(as_arguments(str(error))) from error


def train(
    data: Images = "auto",
    *,
    config: Config | None = None,
    run_dir: str | Path | None = None,
    offline: bool = False,
    verbose: bool = False,
    **settings: Any,
) -> "Run":
    """Fine-tunes a pretrained backbone on images and keeps the result in a run folder.

    Args:
        data: "auto", "fashion-mnist", "sample", the path of an image folder, CSV, npz or IDX
            folder; or arrays: (x, y), ((x_train, y_train), (x_test, y_test)) as Keras's data
            sets come, or a dict of x_train, y_train and, if you like, x_test, y_test and
            class_names. Images are (N, H, W), (N, H, W, 1) or (N, H, W, 3), uint8 or floats in
            [0, 1] or [0, 255]; labels whole numbers, texts or one-hot rows. Arrays are kept in the
            run folder.
        config: settings to begin with, such as `Search.best`; `settings` win over them.
        run_dir: the folder to make, or None for `runs/<time>-<backbone>`.
        offline: never use the network.
        verbose: tell what is done.
        settings: fields of `Config`, such as `backbone`, `image_size` or `finetune_epochs`.

    Returns:
        The finished run.

    Raises:
        InputError: data, weights or settings cannot be used, or training diverged.
    """
    load_keras(verbose)
    with _python_door(verbose):
        from transfer.report.training_report import write_training_report
        from transfer.training.data import load_data
        from transfer.training.run import train as train_run

        given = None if config else frozenset(settings)
        config, arrays = _settle_data(data, config, settings)
        result = train_run(
            config,
            run_dir=Path(run_dir).expanduser() if run_dir is not None else None,
            offline=offline,
            data=load_data(config, offline, arrays=arrays) if arrays else None,
            given=given,
            describe=write_training_report,
        )
    return load(result.run_dir)


def load(run_dir: str | Path, data: str | Path | None = None) -> "Run":
    """Returns a finished run, to be evaluated or used.

    Args:
        run_dir: its folder; or "included" for the model that comes with the package, which is
            unpacked into `runs/`.
        data: where its data is now, if it was moved; or other labelled images of the same classes,
            to score it on.

    Raises:
        InputError: there is no finished run in it, or the data cannot be used.
    """
    with _python_door(verbose=False):
        from transfer.runs.finished import FinishedRun

        if run_dir == INCLUDED:
            load_keras()
            from transfer.runs.included import unpack_included

            run_dir = unpack_included()
        folder = Path(run_dir).expanduser()
        return Run(FinishedRun(folder, None if data is None else str(Path(data).expanduser())))


def tune(
    data: Images = "auto",
    *,
    config: Config | None = None,
    tuner: str = "hyperband",
    trials: int = 30,
    objective: str = "val_accuracy",
    space: Mapping[str, Any] | None = None,
    time_limit_minutes: float = float("inf"),
    offline: bool = False,
    verbose: bool = False,
    **settings: Any,
) -> "Search":
    """Searches for better settings with many short training runs.

    Args:
        data: as `train` takes it.
        config: settings to begin with.
        tuner: "hyperband", "bayesian", "random" or "grid".
        trials: the search ends with so many; the first takes your own settings.
        objective: "val_accuracy" or "val_loss".
        space: fixes or narrows what is searched: a value, a list of values, or a dict of min, max
            and, if you like, log, by the setting's name.
        time_limit_minutes: after which it ends with what was found.
        offline: never use the network.
        verbose: tell what is done.
        settings: fields of `Config`; they are kept as given, the others are searched.

    Returns:
        What was found; the same call goes on with it.

    Raises:
        InputError: something given cannot be used, or every trial failed.
    """
    load_keras(verbose)
    with _python_door(verbose):
        from transfer.tuning import results, search
        from transfer.tuning import space as spaces

        kept = None if config else frozenset(settings)
        config, arrays = _settle_data(data, config, settings)
        best = search.search(
            search.SearchOptions(
                config,
                given=frozenset(settings),
                kept=kept,
                backbones=(config.backbone,),
                tuner=tuner,
                trials=trials,
                objective=objective,
                space=spaces.parse_space(space or {}),
                time_limit=MINUTE * time_limit_minutes,
                command="transfer.tune(...)",
                offline=offline,
                arrays=arrays,
            )
        )
        return Search(best.parent, Config.from_json(best), results.read_csv(best.parent))


def audit(
    data: Images = "auto",
    *,
    out: str | Path = "runs/audit",
    weights: str = "auto",
    offline: bool = False,
    verbose: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Looks for what is wrong with a data set: duplicates, leaks into the test, wrong labels.

    Args:
        data: as `train` takes it.
        out: folder for lists and pictures.
        weights: by whose features label errors are found; "none" for the images' gradients and
            pixels; "auto" for features of images in colour where the weights have seen photos.
        offline: never use the network.
        verbose: tell what is done.
        settings: `limit`, `backbone` and `image_size`.

    Returns:
        Counts of what was found, by kind; the images themselves are listed in `out`.

    Raises:
        InputError: the data or the weights cannot be used.
    """
    with _python_door(verbose):
        from transfer.auditing.run import audit as audit_data

        config, arrays = _settle_data(data, None, settings | {"weights": weights})
        return audit_data(
            config, Path(out).expanduser(), arrays=arrays, offline=offline, verbose=verbose
        )


class Run:
    """A finished run.

    Attributes:
        run_dir: its folder.
        config: its settings.
        class_names: name of each label.
        history: a dict for each epoch: phase, epoch, loss, accuracy, val_loss, val_accuracy,
            learning_rate, seconds.
    """

    def __init__(self, finished: "FinishedRun") -> None:
        self._finished = finished
        self.run_dir = finished.run_dir
        self.config = finished.settings
        self.class_names = finished.class_names
        self.history = finished.history

    def __repr__(self) -> str:
        phase = self._finished.summary.kept_phase
        return f"<Run {self.run_dir}: validation accuracy {100 * phase.val_accuracy:.2f} %>"

    @property
    def model(self) -> "keras.Model":
        """The trained classifier: float (B, S, S, 3) in [0, 255] to probabilities (B, C)."""
        load_keras()
        return self._finished.trained

    def images(self, part: str = "test") -> tuple[np.ndarray, np.ndarray]:
        """Returns a part of the data as it was decoded for training.

        Args:
            part: "train", "validation" or "test".

        Returns:
            uint8 images (N, H, W, 1 or 3) and int64 labels (N,).

        Raises:
            InputError: the data is gone, or has changed since.
        """
        with _python_door(verbose=False):
            split = self._finished.images(part)
            return split.images, split.labels

    def evaluate(self, *, verbose: bool = False) -> "Evaluation":
        """Returns how good the run is on its test images; they are predicted once and kept.

        Raises:
            InputError: its data or its model cannot be used.
        """
        with _python_door(verbose):
            return Evaluation(self._evaluated)

    def report(self, *others: "Run", all_baselines: bool = False, verbose: bool = False) -> Path:
        """Writes the report beside other runs and published results.

        Args:
            others: runs to be compared with.
            all_baselines: all published results, not the best of each family.
            verbose: print it too.

        Returns:
            The path of report.html; report.md, metrics.json and the pictures stand beside it.

        Raises:
            InputError: the run's data or its model cannot be used.
        """
        load_keras(verbose)
        with _python_door(verbose):
            from transfer.report.run_report import report_runs

            evaluated = [self._evaluated, *(other._evaluated for other in others)]
            path = report_runs(evaluated, [], all_baselines=all_baselines)
            return path.with_suffix(".html")

    def predict(
        self,
        photos: str | Path | Sequence[str | Path],
        *,
        top: int = 5,
        tta: bool = False,
        invert: str = "auto",
        verbose: bool = False,
    ) -> "list[Answer]":
        """Names what is on photos; as `transfer.predict`, which see.

        Raises:
            InputError: the model cannot be used, or no photo was named.
        """
        load_keras(verbose)
        with _python_door(verbose):
            from transfer.deploy.predict import predict

            return predict(self._classifier, photos, top=top, tta=tta, invert=invert)

    def export(
        self,
        format: str = "litert",
        *,
        quantize: str = "none",
        output: str | Path | None = None,
        most_loss: float = 0.5,
        limit: int | None = None,
        verbose: bool = False,
    ) -> "Export":
        """Exports the run for other runtimes, and verifies what was exported on the test images.

        Args:
            format: "litert", "onnx", "openvino" or "saved-model".
            quantize: "none", "float16", "int8", or "auto": int8, float16 where that loses too much.
            output: the folder to make; None for `exports/` in the run's.
            most_loss: percentage points of accuracy that it may lose.
            limit: verify it on so many test images; None for all.
            verbose: tell what is done.

        Returns:
            The path of the model, and what it came to.

        Raises:
            InputError: it lost more, the format does not know the quantization or needs what is
                not installed, or the folder exists.
        """
        load_keras(verbose)
        with _python_door(verbose):
            from transfer.deploy.choices import FORMATS, QUANTIZATIONS
            from transfer.deploy.export import Exporter, ExportOptions

            for name, value, known in (
                ("--format", format, FORMATS),
                ("--quantize", quantize, QUANTIZATIONS),
            ):
                if value not in known:
                    raise InputError(
                        f"{name} should be one of {', '.join(known)}. Received: {value}."
                    )
            how = ExportOptions(format, quantize, most_loss, limit)
            return Exporter(self._finished).export(how, Path(output) if output else None)

    @functools.cached_property
    def _classifier(self) -> "Classifier":
        from transfer.deploy.classifiers import open_run

        return open_run(self._finished)

    def plot_history(self) -> "Figure":
        """Returns the learning curves."""
        from transfer.plots.charts import plot_history

        return plot_history(self.history, self.config.label_smoothing)

    @functools.cached_property
    def _evaluated(self) -> "EvaluatedRun":
        from transfer.evaluation.evaluated import evaluate_run

        return evaluate_run(self._finished)


class Evaluation:
    """What a run says of its test images.

    Attributes:
        accuracy: share of the test images, in [0, 1].
        loss: mean cross-entropy in nats.
        metrics: all numbers of the report, as plain values.
        y_true: int64 (N,).
        y_prob: float32 (N, C), rows sum to 1.
    """

    def __init__(self, evaluated: "EvaluatedRun") -> None:
        self._evaluated = evaluated
        self.metrics = evaluated.metrics
        self.accuracy: float = evaluated.metrics["accuracy"]
        self.loss: float = evaluated.metrics["loss"]
        self.y_true = evaluated.predictions.y_true
        self.y_prob = evaluated.predictions.y_prob

    def __repr__(self) -> str:
        low, high = self.metrics["accuracy_interval"]
        return (
            f"<Evaluation: accuracy {100 * self.accuracy:.2f} % "
            f"[{100 * low:.2f}, {100 * high:.2f}] on {len(self.y_true):,} test images>"
        )

    def _repr_markdown_(self) -> str:
        from transfer.report import sections

        blocks = sections.result_section(self.metrics) + sections.classes_section(self.metrics)
        return "\n\n".join(block.markdown() for block in blocks)

    def plot_confusion_matrix(self, *, normalize: bool = False) -> "Figure":
        """Returns the confusion matrix in counts, or in shares of each true class."""
        from transfer.plots.charts import plot_confusion_matrix

        names = self._evaluated.run.class_names
        return plot_confusion_matrix(self.metrics["confusion_matrix"], names, normalize)

    def plot_samples(self, num_each: int = 6) -> "Figure":
        """Returns some test images that were predicted rightly and wrongly, drawn by chance."""
        from transfer.plots.galleries import plot_sample_predictions

        run = self._evaluated.run
        images = run.images("test").images
        return plot_sample_predictions(images, self.y_true, self.y_prob, run.class_names, num_each)


@dataclass(frozen=True)
class Search:
    """What a search came to.

    Attributes:
        folder: where everything is kept.
        best: the best settings, for all images and epochs: `train(data, config=search.best)`.
        trials: a dict for each trial, in the order they began.
    """

    folder: Path
    best: Config
    trials: list[dict[str, str]]


def _settle_data(
    data: Images, config: Config | None, settings: Mapping[str, Any]
) -> tuple[Config, Loaded | None]:
    """Returns the settings, and the data set where it came as arrays."""
    arrays = None if isinstance(data, str | Path) else _from_arrays(data)
    values = config.to_dict() if config else {}
    location = files.DATA if arrays else str(data)
    return Config.from_dict({**values, **settings, "data": location}), arrays


def _from_arrays(data: tuple | Mapping[str, Any]) -> Loaded:
    from transfer.datasets.formats.npz import from_arrays

    if isinstance(data, tuple) and len(data) == 2:
        named = {"x_train": data[0], "y_train": data[1]}
        if isinstance(data[0], tuple) and len(data[0]) == 2 and len(data[1]) == 2:
            named = dict(zip(("x_train", "y_train"), data[0], strict=True))
            named |= dict(zip(("x_test", "y_test"), data[1], strict=True))
    elif isinstance(data, Mapping):
        named = dict(data)
    else:
        raise InputError(
            "data should be a path, (x, y), ((x_train, y_train), (x_test, y_test)) or a dict of "
            f"arrays. Received: {type(data).__name__}."
        )
    return from_arrays(
        {name: np.asarray(value) for name, value in named.items()},
        "data, ",
        "arrays",
        "arrays in memory, no checksum",
    )
