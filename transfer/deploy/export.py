"""From a finished run to files that need nothing of this package: written, then verified.

An export is a folder: the model, what it knows of itself, how it was verified, and a script that
runs it. It appears when all of it is there; of one that answers otherwise than its original, a
report is all that is left.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer import console
from transfer.data.splits import Split
from transfer.deploy.choices import AUTO, FLOAT16, INT8, LITERT, NONE
from transfer.deploy.classifiers import describe_model
from transfer.deploy.exported import as_rgb
from transfer.deploy.facts import ModelFacts
from transfer.deploy.formats import FORMATS, add_facts, convert, missing_modules, write_export
from transfer.deploy.standalone import standalone_script
from transfer.deploy.verify import Verification, load_own, outputs_of, to_json, verify
from transfer.errors import InputError
from transfer.evaluation.answering import Answering, settle_answering
from transfer.evaluation.calibration import fit_calibration
from transfer.evaluation.outliers import SHARE_KNOWN
from transfer.evaluation.predictions import predict_first
from transfer.formatting import format_bytes, format_percent
from transfer.report.document import Table
from transfer.runs import files
from transfer.runs.finished import FinishedRun
from transfer.storage.atomic import whole_folder

if TYPE_CHECKING:
    import keras

MOST_LOSS = 0.5  # percentage points
CALIBRATION_IMAGES = 200  # whose values tell the ranges of int8
SCRIPT = "predict_standalone.py"


@dataclass(frozen=True)
class ExportOptions:
    """How a run is exported.

    Attributes:
        form: a row of `FORMATS`.
        quantize: one of `QUANTIZATIONS`.
        most_loss: percentage points of accuracy that it may lose.
        limit: test images to verify it on; None for all.
    """

    form: str = LITERT
    quantize: str = NONE
    most_loss: float = MOST_LOSS
    limit: int | None = None


@dataclass(frozen=True)
class Export:
    """An export that was verified.

    Attributes:
        path: the model's file, or folder.
        form: its format.
        quantize: "none", "float16" or "int8".
        verification: what it came to on the test images.
    """

    path: Path
    form: str
    quantize: str
    verification: Verification


class RefusedError(InputError):
    """An export that lost too much accuracy, and is gone."""


class Exporter:
    """A run's graph and images, made once for all its exports; Keras has been loaded.

    Args:
        run: a finished run.

    Raises:
        InputError: its data or its model cannot be used.
    """

    def __init__(self, run: FinishedRun) -> None:
        from transfer.deploy.graph import build_graph

        self.run = run
        self._answering: Answering = settle_answering(run)
        self._graph: keras.Model = build_graph(run, self._answering)
        self._facts = describe_model(run, self._answering)
        self._convert = functools.cache(convert)  # once a format
        self._expected = functools.cache(functools.partial(predict_first, run))

    def export(self, options: ExportOptions, output: Path | None = None) -> Export:
        """Exports and verifies in one format; "auto" is int8, float16 where that is refused.

        Raises:
            InputError: the format does not know the quantization, or needs what is not installed,
                or `output` is there already.
            RefusedError: it lost too much accuracy.
        """
        if options.quantize != AUTO:
            return self._export(options, output)
        try:
            return self._export(dataclasses.replace(options, quantize=INT8), output)
        except RefusedError as error:
            console.say(f"{error} float16 instead.")
            return self._export(dataclasses.replace(options, quantize=FLOAT16), output)

    def _export(self, options: ExportOptions, output: Path | None) -> Export:
        form, quantize = options.form, options.quantize
        check_known(form, quantize)
        name = form if quantize == NONE else f"{form}-{quantize}"
        folder = output or self.run.run_dir / files.EXPORTS / name
        check_free(folder)
        try:
            with whole_folder(folder) as temporary:
                verification = self._write(options, temporary, folder)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror or error}.") from error
        return Export(folder / FORMATS[form].file, form, quantize, verification)

    def _write(self, options: ExportOptions, temporary: Path, folder: Path) -> Verification:
        form, quantize = options.form, options.quantize
        images = self._calibration_images()
        path = write_export(self._graph, form, quantize, images, temporary, self._convert)
        facts = self._facts
        if quantize == INT8:
            facts = self._calibrated_again(path)
        add_facts(form, path, facts)
        test, count = self.run.images("test"), options.limit
        verification = verify(
            load_own(path),
            facts,
            path,
            test.images[:count],
            test.labels[:count],
            self._expected(count).y_prob,
        )
        values = to_json(verification) | {"quantize": quantize, "model_sha256": self._model()}
        text = json.dumps(values, indent=2) + "\n"
        if verification.loss > options.most_loss:
            folder.with_name(f"{folder.name}.refused").write_text(text)
            raise RefusedError(
                f"{form} with {quantize} quantization lost {verification.loss:.2f} percentage "
                f"points of accuracy, more than --most-loss {options.most_loss:g}; it was not kept."
            )
        measured = dataclasses.replace(
            facts, accuracy=verification.accuracy, num_test_images=verification.num_images
        )
        add_facts(form, path, measured)
        (temporary / files.VERIFICATION).write_text(text)
        script = standalone_script(form, facts.geometry.fit)
        (temporary / SCRIPT).write_text(script, encoding="utf-8")
        return verification

    def _model(self) -> str:
        with open(self.run.run_dir / files.MODEL, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _calibration_images(self) -> np.ndarray:
        train = self.run.images("train")
        chosen = np.unique(np.linspace(0, train.num_images - 1, CALIBRATION_IMAGES).astype(int))
        return as_rgb(train.images[chosen])

    def _calibrated_again(self, path: Path) -> ModelFacts:
        # Eight bits move confidences and distances: temperature and thresholds of their own.
        validation: Split = self.run.images("validation")
        outputs = outputs_of(load_own(path), self._facts, path, validation.images)
        fitted = fit_calibration(validation.labels, outputs.y_prob)
        return dataclasses.replace(
            self._facts,
            temperature=fitted["temperature"] or 1.0,
            threshold=fitted["threshold"],
            distance_threshold=float(np.quantile(outputs.distance, SHARE_KNOWN)),
        )

    def export_all(self, options: ExportOptions) -> tuple[list[Export], list[str]]:
        """Exports in every format and quantization, into the run's folder.

        Args:
            options: uses `most_loss` and `limit`.

        Returns:
            The exports, and a line for each that was left out or refused.
        """
        exports, left_out = [], []
        for form, row in FORMATS.items():
            for quantize in row.quantizations:
                if missing := missing_modules(form, quantize):
                    left_out.append(f"{form}, {quantize}: {missing[0]} is not installed.")
                    continue
                try:
                    one = dataclasses.replace(options, form=form, quantize=quantize)
                    exports.append(self._export(one, None))
                except RefusedError as error:
                    left_out.append(str(error))
        return exports, left_out


def check_known(form: str, quantize: str) -> None:
    """Raises `InputError` where a format does not know a quantization."""
    known = FORMATS[form].quantizations
    if quantize not in (*known, *([AUTO] if INT8 in known else [])):
        raise InputError(
            f"--quantize of {form} should be {' or '.join(known)}. Received: {quantize}."
        )


def check_free(folder: Path) -> None:
    """Raises `InputError` where there is something already: nothing is overwritten."""
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} exists already; remove it, or name another --output.")


def exports_table(exports: Sequence[Export]) -> Table:
    """Returns a row for each export."""
    header = (
        "format",
        "quantized",
        "size",
        "accuracy %",
        "agreement %",
        "largest difference",
        "images/s at 1",
        "at 32",
    )
    rows = [_row(export) for export in exports]
    return Table(header, (False, False, *[True] * 6), rows)


def _row(export: Export) -> tuple[str, ...]:
    one = export.verification
    low, high = one.accuracy_interval
    return (
        export.form,
        export.quantize,
        format_bytes(one.num_bytes),
        f"{100 * one.accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}]",
        f"{100 * one.agreement:.2f}",
        f"{one.largest_difference:.4f}",
        *(f"{speed:,.0f}" for speed in one.images_per_second.values()),
    )


def sentence(export: Export) -> str:
    """Returns what was verified, in one line."""
    one: Any = export.verification
    return (
        f"{export.path}: {format_percent(one.accuracy)} of {one.num_images:,} test images, the run "
        f"{format_percent(one.original_accuracy)}; {format_bytes(one.num_bytes)}"
    )
