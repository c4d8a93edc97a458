"""The command `transfer`, also as `python -m transfer`: one file a command, loaded when called."""

import importlib
from typing import Any

import click

from transfer.commands.exit_codes import run
from transfer.version import __version__

# In the order of a user's days; each is `main` of the module of its name.
COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "export",
    "app",
    "search",
    "tune",
    "runs",
    "compare",
    "look",
    "audit",
    "weights",
    "cache",
    "pretrain",
)


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Returns a command, None where there is none of this name."""
        return load_command(name) if name in COMMANDS else None


def load_command(name: str) -> click.Command:
    """Returns the command of a name in `COMMANDS`."""
    command: click.Command = importlib.import_module(f"transfer.commands.{name}").main
    return command


class Script(click.Command):
    """One command, imported when it runs: what is not installed is told in one line then."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command of this name."""
        return load_command(self.name or "").main(*args, **kwargs)


@click.command(cls=LazyGroup, context_settings={"max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Fine-tune image classifiers on Fashion-MNIST or your own images; say how good they are."""


def entry() -> None:
    """Runs the installed command `transfer`."""
    run(main, "transfer")


def run_script(name: str) -> None:
    """Runs one command as the script of its name at the top of the repository."""
    run(Script(name), f"{name}.py")
