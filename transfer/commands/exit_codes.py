"""How a command ends: errors and signals become one line on stderr and an exit code.

0 done, 1 an error told in one line, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
"""

import signal
import sys

import click

from transfer.errors import InputError, Interrupted
from transfer.signals import raise_on_sigterm


def run(command: click.Command, name: str | None = None) -> None:
    """Runs a click command and exits with the code of the page's table.

    Args:
        command: the command.
        name: what its usage line calls it; None for the script's name.
    """
    raise_on_sigterm()
    try:
        sys.exit(command.main(prog_name=name, standalone_mode=False) or 0)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except (click.ClickException, InputError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"Error: {message}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(128 + signal.SIGINT)
    except Interrupted as error:
        click.echo(str(error), err=True)
        sys.exit(128 + error.number)
