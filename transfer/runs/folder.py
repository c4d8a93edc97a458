"""Run folders: made once and never taken twice, finished or not, locked while one trains.

What such a folder holds stands in `files.py`.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from filelock import Timeout

from transfer import console
from transfer.errors import InputError
from transfer.runs.files import CHECKPOINTS, CONFIG, DATA, LOCK, LOGS, RUNS_FOLDER, SUMMARY
from transfer.storage.atomic import is_temporary, remove_leftovers
from transfer.storage.atomic import read_json as read_json
from transfer.storage.locks import lock_at_once

_EXISTS = "{} exists already, and runs are never overwritten; name another --run-dir."


def create_run(backbone: str, run_dir: Path | None = None) -> Path:
    """Makes a new, empty run folder; never takes one that is in use.

    Args:
        backbone: name of the backbone, part of the folder's name.
        run_dir: the folder wished for, or None for `runs/<time>-<backbone>`.

    Returns:
        The path of the folder.

    Raises:
        InputError: `run_dir` exists already, or cannot be made.
    """
    if run_dir is not None:
        try:
            return _make_folder(run_dir)
        except FileExistsError as error:
            raise InputError(_EXISTS.format(run_dir)) from error
    path, number = default_run_dir(backbone), 1
    while True:
        try:
            return _make_folder(path.with_name(f"{path.name}-{number}") if number > 1 else path)
        except FileExistsError:  # another run took this name in the same second
            number += 1


def default_run_dir(backbone: str) -> Path:
    """Returns `runs/<time>-<backbone>`, the time being now."""
    return RUNS_FOLDER / f"{datetime.now():%Y%m%d-%H%M%S}-{backbone}"


def check_new(run_dir: Path | None) -> None:
    """Checks early, before minutes are spent, that `create_run` will not refuse this folder.

    What a command left that was killed before its run had begun makes room.

    Raises:
        InputError: `run_dir` exists already.
    """
    if run_dir is None:
        return
    try:
        str(run_dir).encode()
    except UnicodeEncodeError as error:  # which TensorBoard's log cannot lie in
        raise InputError(
            f"--run-dir should be a path in UTF-8. Received: {run_dir}; choose another."
        ) from error
    _remove_unbegun(run_dir)
    if os.path.lexists(run_dir):
        raise InputError(_EXISTS.format(run_dir))


def _remove_unbegun(run_dir: Path) -> None:
    # Nothing is in such a folder but the lock, what was being written, and arrays from Python,
    # which are written before config.json. Without our lock beside them they are somebody's.
    if run_dir.is_symlink() or not run_dir.is_dir():
        return
    ours = {LOCK, DATA} if _is_empty_file(run_dir / LOCK) else {LOCK}
    if not all(name in ours or is_temporary(name) for name in os.listdir(run_dir)):
        return
    with contextlib.suppress(OSError), lock_run(run_dir):
        remove_leftovers(run_dir, ".+", alone=True)
        for name in ours:
            (run_dir / name).unlink(missing_ok=True)
        run_dir.rmdir()


def _is_empty_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not path.stat().st_size


def _make_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True)  # atomic: of two runs only one gets the folder
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        if isinstance(error, FileExistsError) and os.path.lexists(path):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be made: {reason}; choose another --run-dir.") from error
    return path


def finished_runs(folder: Path = RUNS_FOLDER) -> list[Path]:
    """Returns the finished runs in `folder`, the newest first."""
    return [path.parent for path in _newest_first(folder.glob(f"*/{SUMMARY}"))]


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    there = [path for path in paths if path.is_file()]  # no link that leads nowhere
    return sorted(there, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def check_finished(run_dir: Path) -> Path:
    """Returns `run_dir` if it holds a finished run.

    Raises:
        InputError: there is no such folder, or its run has not finished.
    """
    if not (run_dir / CONFIG).is_file():
        raise InputError(f"{run_dir} is not a run folder: it should hold {CONFIG}.")
    if not is_finished(run_dir):
        raise InputError(
            f"the run in {run_dir} has not finished: {SUMMARY} is missing. To go on with it: "
            f"{console.how_to('train', '--resume', run_dir)}"
        )
    return run_dir


def newest_unfinished_run(folder: Path = RUNS_FOLDER) -> Path:
    """Returns the unfinished run that began last and that no process is training.

    Raises:
        InputError: there is none.
    """
    for run_dir in (path.parent for path in _newest_first(folder.glob(f"*/{CONFIG}"))):
        if not is_tidy(run_dir) and not is_locked(run_dir):
            return run_dir
    raise InputError(f"no unfinished run in {folder}/ to resume; name a run folder.")


def is_finished(run_dir: Path) -> bool:
    """Returns whether this folder holds a finished run."""
    return (run_dir / SUMMARY).is_file()


def is_tidy(run_dir: Path) -> bool:
    """Returns whether a run has finished and was not killed before its checkpoints were gone."""
    return is_finished(run_dir) and not os.path.lexists(run_dir / CHECKPOINTS)


def check_resumable(run_dir: Path) -> Path:
    """Returns `run_dir` if it holds a run that has begun and is not over.

    Raises:
        InputError: there is no such folder, its run has finished, or a folder in it is none.
    """
    if not (run_dir / CONFIG).is_file():
        raise InputError(f"{run_dir} is not a run folder: it should hold {CONFIG}.")
    if is_tidy(run_dir):
        raise InputError(f"the run in {run_dir} has finished; there is nothing to resume.")
    for name in (CHECKPOINTS, LOGS):
        check_own_folder(run_dir / name)
    return run_dir


def check_own_folder(path: Path) -> Path:
    """Returns a folder in a run folder, if it is one or is not there yet.

    In a run from a stranger a link may lead to files of the user's, of the same names.

    Raises:
        InputError: it is a link, or something else.
    """
    if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
        raise InputError(f"{path} should be a folder. Received: a link or a file; remove it.")
    return path


@contextlib.contextmanager
def lock_run(run_dir: Path) -> Iterator[None]:
    """Keeps other processes from training in this folder.

    Raises:
        InputError: another process trains in it, or the lock is a folder.
        OSError: it cannot be written.
    """
    if (run_dir / LOCK).is_dir():
        raise InputError(f"{run_dir / LOCK} cannot be locked: it is a folder; remove it.")
    try:
        with lock_at_once(run_dir / LOCK):
            yield
    except Timeout as error:
        raise InputError(
            f"{run_dir} is being trained by another process; wait for it, or name another run."
        ) from error


@contextlib.contextmanager
def lock_new_run(run_dir: Path) -> Iterator[None]:
    """Locks a folder that `create_run` made, before its run begins; errors as `lock_run`."""
    with lock_run(run_dir):
        if (run_dir / CONFIG).exists():  # of another process that had the same wish
            raise InputError(_EXISTS.format(run_dir))
        yield


def is_locked(run_dir: Path) -> bool:
    """Returns whether a process trains in this folder, as far as can be seen."""
    try:
        with lock_run(run_dir):
            return False
    except InputError:
        return True
    except OSError:  # another user's: nobody trains where nothing can be written
        return False
