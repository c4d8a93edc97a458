"""Checkpoints: all that a killed training run needs to go on as if nothing had happened.

At the end of each epoch a folder is written beside its place and renamed, so that it is there
whole or not at all, and each of its files is checked before it is believed:

    checkpoints/1-head-0003/
        variables.npz    every variable of model and optimizer, seed states included
        state.json       epoch, history, and what Keras's callbacks forget on a restart
        manifest.json    SHA-256 of the two
"""

import contextlib
import hashlib
import math
import os
import re
import secrets
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from transfer.datasets.formats.npz import read_arrays
from transfer.errors import InputError, shortened
from transfer.runs import files
from transfer.runs.history import check_rows, write_history
from transfer.storage.atomic import (
    flush_folder,
    read_json,
    remove_leftovers,
    whole_file,
    write_json,
)
from transfer.storage.untrusted import open_regular
from transfer.training.callbacks import FINETUNE, HEAD, SMALL, HistoryRecorder
from transfer.training.distribution import is_first
from transfer.training.scores import best_loss

VARIABLES, STATE, MANIFEST = "variables.npz", "state.json", "manifest.json"
KEPT = 2  # newest checkpoints that stay, beside the best one

_FOLDERS = {HEAD: "1-head", SMALL: "1-small", FINETUNE: "2-fine-tune"}  # sorted as they follow
_NAME = re.compile(rf"({'|'.join(_FOLDERS.values())})-[0-9]{{4,}}")
_PARTIAL = re.compile(r"\.partial-\w+")
_MOST_SECONDS = 1e10  # centuries
_DAMAGES = (
    InputError,
    OSError,
    ValueError,
    TypeError,
    EOFError,
    MemoryError,
    zipfile.BadZipFile,
)

# What the callbacks lose between two processes; their settings come from the run's own.
_REMEMBERED = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    # At the end of an epoch the average is in the model, what trains in the optimizer.
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


class CheckpointError(InputError):
    """A checkpoint is damaged, or belongs to another model."""


@dataclass(frozen=True)
class State:
    """Where a run stood at the end of an epoch."""

    phase: str
    epoch: int  # finished epochs of the phase
    finished: bool  # whether the phase ended with this epoch
    best_epoch: int  # of the phase, from 1
    seconds: float  # the run has taken so far
    history: list[dict]  # the rows of history.csv
    callbacks: dict[str, dict]  # class name -> attribute -> value


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole."""

    path: Path
    state: State
    variables: dict[str, np.ndarray]  # "model/0", "optimizer/0", "best/0", "before/0", ...

    def arrays(self, kind: str) -> list[np.ndarray]:
        """Returns the variables of a kind in order, none where the checkpoint has none."""
        return [array for name, array in self.variables.items() if name.startswith(f"{kind}/")]


def write_checkpoint(folder: Path, state: State, variables: Mapping[str, np.ndarray]) -> Path:
    """Writes a checkpoint: whole and on the disk under its name, or not at all.

    Args:
        folder: holds the checkpoints of a run; made where it is missing.
        state: where the run stands.
        variables: arrays of numbers by name.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    arrays: dict[str, Any] = dict(variables)
    folder.mkdir(exist_ok=True)
    target = folder / _name(state.phase, state.epoch)
    partial = folder / f".partial-{secrets.token_hex(4)}"
    partial.mkdir(mode=0o700)
    try:
        with whole_file(partial / VARIABLES) as file:
            np.savez(file, **arrays)
        write_json(partial / STATE, asdict(state))
        write_json(partial / MANIFEST, _checksums(partial))
        flush_folder(partial)
        if target.exists():  # damaged: a whole one would have been resumed from
            _remove(target)
        partial.rename(target)
        flush_folder(folder)
    finally:
        _remove(partial)
    return target


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint back after comparing its checksums.

    Raises:
        CheckpointError: a file is missing, or is not what was written; or, from a stranger, what
            no training writes.
    """
    try:
        if read_json(path / MANIFEST) != _checksums(path):
            raise ValueError("a checksum differs")
        state = _parse_state(read_json(path / STATE), path.name)
        return Checkpoint(path, state, _read_variables(path / VARIABLES))
    except _DAMAGES as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error})") from error


def _parse_state(values: Mapping[str, Any], name: str) -> State:
    state = State(**values)
    for field, kind in (("phase", str), ("epoch", int), ("finished", bool), ("best_epoch", int)):
        if type(getattr(state, field)) is not kind:
            raise ValueError(f"{field} is {shortened(getattr(state, field))}")
    if state.phase not in _FOLDERS or name != _name(state.phase, state.epoch):
        raise ValueError(f"it is of epoch {state.epoch} of {shortened(state.phase)}")
    if not 1 <= state.best_epoch <= state.epoch:
        raise ValueError(f"best_epoch is {state.best_epoch}")
    seconds = state.seconds
    if type(seconds) not in (int, float) or not 0 <= seconds <= _MOST_SECONDS:
        raise ValueError(f"seconds is {shortened(seconds)}")
    if type(state.history) is not list or type(state.callbacks) is not dict:
        raise ValueError("the history or the callbacks are none")
    check_rows(state.history)
    _check_callbacks(state.callbacks)
    return state


def _check_callbacks(callbacks: Mapping[str, Any]) -> None:
    # Only what is remembered is given back to a callback, and only numbers.
    known = {kind.__name__: names for kind, names in _REMEMBERED.items()}
    for name, values in callbacks.items():
        fits = name in known and isinstance(values, dict) and set(values) <= set(known[name])
        if not fits or not all(type(value) in (int, float, bool) for value in values.values()):
            raise ValueError(f"the callback {shortened(name)} remembers {shortened(values)}")


def _read_variables(path: Path) -> dict[str, np.ndarray]:
    # The checksums tell damage; a checkpoint from a stranger may be made to fill the memory.
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"{path.name} is compressed")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError(f"{path.name} declares more than it holds")
    arrays = read_arrays(path, [member.filename.removesuffix(".npy") for member in members])
    if odd := [name for name, array in arrays.items() if array.dtype.kind not in "biuf"]:
        raise ValueError(f"{shortened(odd[0])} is no array of numbers")
    return arrays


def _name(phase: str, epoch: int) -> str:
    return f"{_FOLDERS[phase]}-{epoch:04d}"


def newest_checkpoint(folder: Path, tell: Callable[[str], None]) -> Checkpoint | None:
    """Returns the newest whole checkpoint of a run, or None if there is none.

    What a killed process left half written is removed.

    Args:
        folder: holds the checkpoints of a run; may be missing.
        tell: called with a line for each damaged checkpoint that is passed over.

    Raises:
        InputError: it is a link: of what others keep elsewhere nothing may be removed.
    """
    if folder.is_symlink():
        raise InputError(
            f"{folder} should be a folder of this run alone. Received: a link; put the folder "
            "itself there."
        )
    for leftover in _own_folders(folder, _PARTIAL):
        _remove(leftover)
    for path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            tell(f"{error}; going back to the one before.")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run, the oldest first."""
    return _own_folders(folder, _NAME)


def _own_folders(folder: Path, name: re.Pattern[str]) -> list[Path]:
    try:
        entries = [entry for entry in os.scandir(folder) if name.fullmatch(entry.name)]
    except OSError:  # missing
        return []
    return sorted(Path(each.path) for each in entries if each.is_dir(follow_symlinks=False))


def remove_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a run that has finished, and nothing else that lies there."""
    if folder.is_symlink():
        return
    for path in list_checkpoints(folder) + _own_folders(folder, _PARTIAL):
        _remove(path)
    with contextlib.suppress(OSError):  # somebody keeps something there
        folder.rmdir()


def _remove(path: Path) -> None:
    # What is written here, under its name or on its way to it; from the first file on it is none.
    for name in (MANIFEST, STATE, VARIABLES):
        with contextlib.suppress(OSError):
            (path / name).unlink()
    remove_leftovers(path, f"{MANIFEST}|{STATE}|{VARIABLES}", alone=True)
    with contextlib.suppress(OSError):
        path.rmdir()


def _checksums(path: Path) -> dict[str, str]:
    checksums = {}
    for name in (VARIABLES, STATE):
        with open_regular(path / name) as file:
            checksums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return checksums


class HeadPhaseWeights:
    """The weights with which fine-tuning begins, held as long as no epoch of it is better.

    Args:
        classifier: as the head phase left it, unless the checkpoint is of a later phase.
        recorder: knows the scores.
        resumed: the checkpoint to start from, or None.
    """

    def __init__(
        self, classifier: keras.Model, recorder: HistoryRecorder, resumed: Checkpoint | None
    ) -> None:
        self._recorder = recorder
        if resumed is not None and resumed.state.phase != HEAD:
            self._weights = resumed.arrays("before")
            shapes = [weight.shape for weight in classifier.weights]
            if self._weights and [array.shape for array in self._weights] != shapes:
                raise CheckpointError(f"checkpoint {resumed.path} belongs to another model.")
        else:
            has_scores = math.isfinite(best_loss(recorder.rows, HEAD))
            self._weights = classifier.get_weights() if has_scores else []

    def if_better(self) -> list[np.ndarray]:
        """Returns the weights, none where an epoch of fine-tuning was as good as the head phase."""
        rows = self._recorder.rows
        if not best_loss(rows, HEAD) < best_loss(rows, FINETUNE):
            self._weights = []
        return self._weights

    def put_back_if_better(self, classifier: keras.Model) -> None:
        """Gives them to the classifier, where fine-tuning ended worse."""
        if weights := self.if_better():
            classifier.set_weights(weights)


class Checkpointer(keras.callbacks.Callback):
    """Writes a checkpoint and history.csv after each epoch, and starts a phase from a checkpoint.

    It stands last among the callbacks: it sees what the others did at the end of an epoch, and
    puts back at the start of a phase what they have just forgotten.

    Args:
        recorder: knows run folder, phase and history.
        callbacks: of the same `fit`; those of `_REMEMBERED` are kept.
        started: `time.perf_counter()` of the run's start, earlier by what it took before.
        resumed: the checkpoint to start from, or None.
        before: weights of the phase before, which may be the better ones.
    """

    def __init__(
        self,
        recorder: HistoryRecorder,
        callbacks: Iterable[keras.callbacks.Callback],
        started: float,
        resumed: Checkpoint | None = None,
        before: HeadPhaseWeights | None = None,
    ) -> None:
        super().__init__()
        self._before = before
        self._recorder, self._started, self._resumed = recorder, started, resumed
        self._remembered = {
            type(callback).__name__: (callback, _REMEMBERED[type(callback)])
            for callback in callbacks
            if type(callback) in _REMEMBERED
        }

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts back what the checkpoint holds, where the phase starts from one.

        Raises:
            CheckpointError: it belongs to another model.
        """
        if self._resumed is None:
            return
        _assign(self._model_and_optimizer(), self._resumed)
        for name, values in self._resumed.state.callbacks.items():
            for attribute, value in values.items() if name in self._remembered else ():
                setattr(self._remembered[name][0], attribute, value)
        stopping = self._remembered["EarlyStopping"][0]
        stopping.best_weights = self._resumed.arrays("best") or self.model.get_weights()
        if [array.shape for array in stopping.best_weights] != _shapes(self.model.weights):
            raise CheckpointError(f"checkpoint {self._resumed.path} belongs to another model.")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Writes a checkpoint, unless the loss is no number, and history.csv."""
        # A diverged epoch is not worth going back to.
        if is_first() and math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"]):
            self._write(epoch)
        write_history(self._recorder.run_dir, self._recorder.rows)

    def _write(self, epoch: int) -> None:
        stopping = self._remembered["EarlyStopping"][0]
        variables = {
            name: keras.ops.convert_to_numpy(variable)
            for name, variable in self._model_and_optimizer().items()
        }
        if stopping.best_epoch != epoch:
            variables |= {f"best/{i}": array for i, array in enumerate(stopping.best_weights)}
        before = self._before.if_better() if self._before else []
        variables |= {f"before/{i}": array for i, array in enumerate(before)}
        state = State(
            phase=self._recorder.phase,
            epoch=epoch + 1,
            finished=self.model.stop_training or epoch + 1 == self.params["epochs"],
            best_epoch=stopping.best_epoch + 1,
            seconds=time.perf_counter() - self._started,
            history=self._recorder.rows,
            callbacks={
                name: {attribute: getattr(callback, attribute) for attribute in attributes}
                for name, (callback, attributes) in self._remembered.items()
            },
        )
        folder = self._recorder.run_dir / files.CHECKPOINTS
        write_checkpoint(folder, state, variables)
        _prune(folder, state)

    def _model_and_optimizer(self) -> dict[str, keras.Variable]:
        return {f"model/{i}": variable for i, variable in enumerate(self.model.variables)} | {
            f"optimizer/{i}": variable for i, variable in enumerate(self.model.optimizer.variables)
        }


def _assign(variables: Mapping[str, keras.Variable], checkpoint: Checkpoint) -> None:
    for name, variable in variables.items():
        value = checkpoint.variables.get(name)
        if value is None or value.shape != tuple(variable.shape):
            raise CheckpointError(f"checkpoint {checkpoint.path} belongs to another model.")
        variable.assign(value)


def _shapes(variables: Iterable[keras.Variable]) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in variables]


def _prune(folder: Path, state: State) -> None:
    # The newest ones, and the best of this phase.
    paths = list_checkpoints(folder)
    best = _name(state.phase, state.best_epoch)
    for path in paths[:-KEPT]:
        if path.name != best:
            _remove(path)
