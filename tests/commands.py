"""Runs the real scripts in processes of their own, without TensorFlow's import in each.

A server process imports TensorFlow once, computes nothing, and forks a child for each command.
The child has its own working folder, arguments, output files and signals, and ends with the
script's own exit code.
"""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.commands", "tests.commands_preload"])


def start(
    script: str,
    arguments: list[str],
    cwd: Path,
    output: Path,
    prepare: Callable[[], None] | None = None,
) -> multiprocessing.Process:
    """Starts `python <script>.py <arguments>` and returns the process.

    Args:
        script: "train" or "evaluate".
        arguments: the words after the script's name.
        cwd: working folder of the process.
        output: file that takes stdout and stderr.
        prepare: a function of a module, called in the process before the script.
    """
    process = _context.Process(
        target=_run, args=(script, list(map(str, arguments)), cwd, output, prepare), daemon=True
    )
    process.start()
    return process


def _run(
    script: str,
    arguments: list[str],
    cwd: Path,
    output: Path,
    prepare: Callable[[], None] | None,
) -> None:
    os.chdir(cwd)
    with open(output, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = open(1, "w", closefd=False, buffering=1)
    sys.stderr = open(2, "w", closefd=False, buffering=1)
    sys.argv = [f"{script}.py", *arguments]
    if prepare:
        prepare()
    from transfer import cli

    cli.run(importlib.import_module(script).main)
