"""What the scripts share: options made from `Config`, errors turned into exit codes, quiet imports.

Exit codes: 0 done, 1 an error told in one line on stderr, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
Nothing here imports TensorFlow before a command really computes, so `--help` is instant.
"""

import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from transfer.config import Config, Setting, settings
from transfer.errors import InputError, Interrupted
from transfer.models.backbones import BACKBONES

if TYPE_CHECKING:
    from rich.console import Console


class NumberOrWord(click.ParamType):
    """A number within the bounds of a `Setting`, or one of its words."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = "|".join((*setting.words, "number"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value not in self.setting.words:
            with contextlib.suppress(ValueError):
                value = self.setting.kind(value)
        try:
            self.setting.check(param.opts[-1] if param else "value", value)
        except InputError:
            self.fail(f"should be {self.setting.describe()}. Received: {value!r}.", param, ctx)
        return value


def _click_type(name: str, setting: Setting) -> Any:
    if name == "backbone":
        return click.Choice(list(BACKBONES))
    if setting.choices:
        return click.Choice(setting.choices)
    return setting.kind if setting.kind in (str, bool) else NumberOrWord(setting)


def config_options(command: Callable, several: Container[str] = ()) -> Callable:
    """Adds one option for each field of `Config`, and `--config FILE.json`, to a click command.

    Args:
        command: the command.
        several: fields whose option may be given more than once; their value is a tuple.
    """
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        show_default="none",
        help="A JSON file of settings, such as a run's config.json; options here win over it.",
    )(_add_settings(command, settings(), several))


def setting_options(*names: str) -> Callable[[Callable], Callable]:
    """Returns a decorator that adds the options of these fields of `Config` to a click command."""
    return lambda command: _add_settings(command, names)


def _add_settings(
    command: Callable, names: Iterable[str], several: Container[str] = ()
) -> Callable:
    defaults = Config()
    for name in reversed(list(names)):
        setting = settings()[name]
        option = "--" + name.replace("_", "-")
        if setting.kind is bool:
            option += "/--no-" + name.replace("_", "-")
        default = [getattr(defaults, name)] if name in several else getattr(defaults, name)
        command = click.option(
            option,
            name,
            type=_click_type(name, setting),
            default=default,
            multiple=name in several,
            show_default="all images" if default is None else True,
            help=setting.help,
        )(command)
    return command


def conduct_options(command: Callable) -> Callable:
    """Adds `--quiet` and `--verbose`, which every script has."""
    for option, text in (
        ("--verbose", "Show the libraries' own log and warnings."),
        ("--quiet", "Print errors and nothing else."),
    ):
        command = click.option(option, is_flag=True, help=text)(command)
    return command


def make_config(values: dict[str, Any]) -> Config:
    """Makes the Config of the options' values.

    Raises:
        click.UsageError: two of them contradict each other.
    """
    try:
        return Config.from_dict(values)
    except InputError as error:
        raise click.UsageError(str(error)) from error


def make_console(quiet: bool) -> "Console":
    """Returns the console that results and progress go to; plain where it is no terminal."""
    from rich.console import Console

    # Without a terminal rich would fold lines at 80 columns; a log wants whole lines.
    width = None if sys.stdout.isatty() else 160
    # Brackets in a path or a class's name are that, not rich's markup.
    return Console(quiet=quiet, width=width, markup=False, highlight=False)


def command_line() -> str:
    """Returns the command as the user typed it."""
    return shlex.join(["python", *sys.argv])


def _load_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    # click's default_map: values of the file replace the defaults, options replace both.
    if path is not None:
        values = Config.from_json(path).to_dict()
        several = [option.name for option in ctx.command.params if getattr(option, "multiple", 0)]
        ctx.default_map = {
            name: [value] if name in several else value for name, value in values.items()
        }


def given_settings(ctx: click.Context, names: Container[str]) -> dict[str, Any]:
    """Returns those of `names` that the user gave, in options or `--config`, not the defaults."""
    default = click.core.ParameterSource.DEFAULT
    return {
        name: value
        for name, value in ctx.params.items()
        if name in names and ctx.get_parameter_source(name) is not default
    }


def given_options(ctx: click.Context, names: Container[str]) -> frozenset[str]:
    """Returns those of `names` that stand on the command line itself, not in `--config`."""
    command_line = click.core.ParameterSource.COMMANDLINE
    return frozenset(
        name
        for name in ctx.params
        if name in names and ctx.get_parameter_source(name) is command_line
    )


def run(command: click.Command) -> None:
    """Runs a click command and exits with the code of the page's table."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(command.main(standalone_mode=False) or 0)
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


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)


def load_tensorflow(verbose: bool) -> None:
    """Imports TensorFlow and Keras, without their start-up log unless `verbose`.

    Raises:
        InputError: they are not installed.
    """
    # Whatever keras.json says: the pipeline is tf.data.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if not verbose:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        with contextlib.nullcontext() if verbose else _silent_stderr():
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error}; run `pip install -r requirements.txt`.") from error


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    # TensorFlow's C++ start-up lines obey no log level, so the file descriptor itself is turned.
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
