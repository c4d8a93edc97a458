"""Runs the real scripts in processes of their own, without TensorFlow's import in each.

A server process imports TensorFlow once, computes nothing, and forks a child for each command.
The child has its own working folder, arguments, output files and signals, and ends with the
script's own exit code.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.commands", "tests.commands_preload"])


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def start(
    script: str,
    arguments: Iterable[object],
    cwd: Path,
    output: Path,
    prepare: Callable[[], None] | None = None,
    errors: Path | None = None,
) -> multiprocessing.Process:
    """Starts `python <script>.py <arguments>` and returns the process.

    Args:
        script: "train", "evaluate" or "transfer/__main__".
        arguments: the words after the script's name.
        cwd: working folder of the process.
        output: file that takes stdout, and stderr where `errors` is None.
        prepare: a function of a module, called in the process before the script.
        errors: file that takes stderr.
    """
    words = [f"{script}.py", *map(str, arguments)]
    process = _context.Process(
        target=_run,
        args=(words, cwd, (output, errors or output), dict(os.environ), prepare),
        daemon=True,
    )
    process.start()
    return process


def run(
    script: str,
    arguments: Iterable[object],
    cwd: Path,
    prepare: Callable[[], None] | None = None,
) -> Finished:
    """Runs `python <script>.py <arguments>` to its end; arguments as `start`."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "stdout"), Path(folder, "stderr")
        process = start(script, arguments, cwd, output, prepare, errors)
        process.join()
        return Finished(process.exitcode, output.read_text(), errors.read_text())


def _run(
    words: list[str],
    cwd: Path,
    files: tuple[Path, Path],
    environment: dict[str, str],
    prepare: Callable[[], None] | None,
) -> None:
    # As in a terminal: a job in the background of a shell ignores Ctrl-C, and so would its child.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # It ends with the tests, but a search may have children, which `multiprocessing` forbids those.
    multiprocessing.current_process()._config["daemon"] = False
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(files, 1):
        with open(path, "ab", buffering=0) as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout = open(1, "w", closefd=False, buffering=1)
    sys.stderr = open(2, "w", closefd=False, buffering=1)
    sys.argv = words
    if prepare:
        prepare()
    from transfer.commands import main
    from transfer.commands.exit_codes import run as run_command

    if words[0] == "transfer/__main__.py":
        run_command(main.main, "python -m transfer")
    elif Path(words[0]).stem in main.COMMANDS:
        main.run_script(Path(words[0]).stem)
    else:
        module = words[0].removesuffix(".py").replace("/", ".")
        run_command(importlib.import_module(module).main)
