"""How a command ends: errors and signals become one line on stderr and an exit code.

0 done, 1 an error told in one line, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM; of a worker among
several processes also 75, for the one that watches it.
"""

import errno
import os
import shutil
import signal
import sys

import click

from transfer import signals, workers
from transfer.backend import INSTALL, claim_process
from transfer.commands.hints import improve
from transfer.commands.streams import Steady, steady_streams
from transfer.errors import (
    HOW_TO_GO_ON,
    InputError,
    Interrupted,
    LostProcess,
    disk_error,
    printable,
)

_NO_MEMORY = "there is not enough memory; take less at a time (--batch-size, --image-size)."


def run(command: click.Command, name: str | None = None) -> None:
    """Runs a click command and exits with the code of the page's table.

    Args:
        command: the command.
        name: what its usage line calls it; None for the script's name.
    """
    signals.raise_on_stop()
    claim_process()
    os.environ.pop("MPLBACKEND", None)  # of windows and notebooks; commands write files
    workers.begin()
    with steady_streams() as output:
        code = _run(command, name)
        signals.obey_the_system()  # Python's own end is nothing to wait for
        output.flush()
        if code and workers.is_worker():  # JAX would wait for the others
            sys.stderr.flush()
            os._exit(code)
        sys.exit(code or _tell_lost_output(output))


def _run(command: click.Command, name: str | None) -> int:
    """Returns the exit code, after telling on stderr whatever went wrong."""
    try:
        code = command.main(prog_name=name, standalone_mode=False) or 0
    except click.UsageError as error:
        improve(error).show()
        return 2
    except Interrupted as error:
        return _tell_stop(error.number, str(error))
    except LostProcess:
        return workers.LOST
    except (click.Abort, KeyboardInterrupt):
        return _tell_stop(signal.SIGINT)
    except Exception as error:
        if signals.came():  # an error that a library made of the stop, or met on the way out
            return _tell_stop(signals.came())
        message = _message(error)
        if message is None:
            raise
        click.echo(f"Error: {message}", err=True)
        return 1
    return _tell_stop(signals.came()) if signals.came() else code


def _tell_stop(number: int, message: str = "Stopped.") -> int:
    start, follows, command = message.partition(HOW_TO_GO_ON)
    # A terminal that is too narrow for both gets the command to copy on a line of its own.
    if follows and sys.stderr.isatty() and len(message) > shutil.get_terminal_size().columns:
        message = f"{start.rstrip()}\n{follows}{command}"
    click.echo(message, err=True)
    return 128 + number


def _message(error: Exception) -> str | None:
    """Returns an error in one line, None for one that nobody foresaw."""
    if isinstance(error, click.ClickException):
        return printable(error.format_message())
    if isinstance(error, InputError):
        return str(error)
    if told := disk_error(error):
        return str(told)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "transfer").startswith(
        "transfer"
    ):
        return f"{error}; {INSTALL}."
    # TensorFlow's own, which is not imported for its name.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return _NO_MEMORY
    return None


def _tell_lost_output(output: Steady) -> int:
    """Returns the exit code of a command that did its work: a reader may go, a disk not be full."""
    if output.error is None or output.error.errno == errno.EPIPE:
        return 0
    reason = os.strerror(output.error.errno or errno.EIO)
    click.echo(f"Error: standard output: {reason}; what was printed is lost.", err=True)
    return 1
