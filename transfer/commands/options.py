"""What the commands share: options made from the groups of `Config`, in groups of their own.

Nothing here imports TensorFlow before a command really computes, so `--help` is instant.
"""

import contextlib
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from transfer.config import Config, Setting, groups, read_settings, settings
from transfer.errors import InputError, as_options
from transfer.models.backbones import BACKBONES
from transfer.workers import Place, local_places, make_place, read_place

Decorator = Callable[[Callable], Callable]

FIRST, OTHER = "the five that matter most", "this command"
WIDTH = {"max_content_width": 100}
LONGEST_CHOICES = 60  # characters; more of them stand in the text, where lines can break


class NumberOrWord(click.ParamType):
    """A number within the bounds of a `Setting`, or one of its words."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = "|".join((*setting.words, "number"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the number or the word, or fails with what is accepted."""
        value = self.setting.normalise(value)
        if isinstance(value, str) and value not in self.setting.words:
            with contextlib.suppress(ValueError):
                value = self.setting.kind(value)
        try:
            self.setting.check(param.opts[-1] if param else "value", value)
        except InputError:
            self.fail(f"should be {self.setting.describe()}. Received: {value!r}.", param, ctx)
        return value


class UserPath(click.Path):
    """A path, where `~` is the user's home also if no shell has said so: `--out=~/audit`."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay, dir_okay=dir_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path, or fails as click does."""
        return super().convert(os.path.expanduser(value), param, ctx)


class NewFile(UserPath):
    """A file to be written; where its folder is missing, that is said before anything is done."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path, or fails where there is no such folder."""
        path = super().convert(value, param, ctx)
        if not path.parent.is_dir():
            self.fail(f"the folder {path.parent} does not exist; make it first.", param, ctx)
        return path


def check_different(run_dirs: Sequence[Path]) -> None:
    """Raises `click.UsageError` where a run is named twice."""
    real = [os.path.realpath(run_dir) for run_dir in run_dirs]
    twice = [name for name, path in zip(run_dirs, real, strict=True) if real.count(path) > 1]
    if twice:
        raise click.UsageError(f"{twice[0]} is named twice; name each run once.")


class GroupedCommand(click.Command):
    """A command whose help shows its options under the groups of `Config`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the settings that matter most, the command's own options, then group by group."""
        sections: dict[str, list[tuple[str, str]]] = {FIRST: [], OTHER: []}
        sections |= {group: [] for group in groups()}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                sections[_section(param)].append(record)
        own = sections.pop(OTHER)
        for title, rows in [(FIRST, sections.pop(FIRST)), *sections.items(), (OTHER, own)]:
            if rows:
                with formatter.section(title.capitalize()):
                    formatter.write_dl(rows)


def _section(param: click.Parameter) -> str:
    # A command's own option may bear a setting's name, as the audit's --weights.
    setting = settings().get(param.name or "")
    if setting is None or param.name != getattr(param, "setting_name", None):
        return OTHER
    if setting.matters_most:
        return FIRST
    return next(group for group, names in groups().items() if param.name in names)


class SettingOption(click.Option):
    """An option that is a field of `Config`; its help shows bounds and default."""

    def __init__(self, *args: Any, setting_name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.setting_name = setting_name


def _click_type(name: str, setting: Setting) -> Any:
    choices = list(BACKBONES) if name == "backbone" else setting.choices
    if choices:
        return click.Choice(choices, case_sensitive=False)
    return setting.kind if setting.kind in (str, bool) else NumberOrWord(setting)


def config_options(command: Callable, several: Container[str] = ()) -> Callable:
    """Adds one option for each field of `Config`, and `--config FILE.json`, to a click command.

    Args:
        command: the command.
        several: fields whose option may be given more than once; their value is a tuple.
    """
    return click.option(
        "--config",
        type=UserPath(dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        show_default="none",
        help="A JSON file of settings, such as a run's config.json; options here win over it.",
    )(_add_settings(command, settings(), several))


def setting_options(*names: str) -> Decorator:
    """Returns a decorator that adds the options of these fields of `Config` to a click command."""
    return lambda command: _add_settings(command, names)


def _add_settings(
    command: Callable, names: Iterable[str], several: Container[str] = ()
) -> Callable:
    for name in reversed(list(names)):
        setting = settings()[name]
        option = option_name(name)
        if setting.kind is bool:
            option += f"/--no-{option.removeprefix('--')}"
        default = [setting.default] if name in several else setting.default
        bounds = setting.describe_bounds().strip()
        kind = _click_type(name, setting)
        text = f"{setting.help.removesuffix('.')}, {bounds}." if bounds else setting.help
        is_long = isinstance(kind, click.Choice) and len("|".join(kind.choices)) > LONGEST_CHOICES
        if is_long:
            text = f"{text.removesuffix('.')}: {', '.join(kind.choices)}."
        command = click.option(
            option,
            name,
            cls=SettingOption,
            setting_name=name,
            type=kind,
            metavar="NAME" if is_long else None,
            default=default,
            multiple=name in several,
            show_default="all images" if default is None else True,
            help=text,
        )(command)
    return command


def option_name(setting: str) -> str:
    """Returns the option of a setting: "--image-size"."""
    return "--" + setting.replace("_", "-")


def conduct_options(command: Callable) -> Callable:
    """Adds `--quiet` and `--verbose`, which every command has."""
    for option, text in (
        ("--verbose", "Show the libraries' own log and warnings."),
        ("--quiet", "Print errors and nothing else."),
    ):
        command = click.option(option, is_flag=True, help=text)(command)
    return command


def processes_options(command: Callable) -> Callable:
    """Adds the options of a training in several processes."""
    for option, kind, text in (
        ("--process-id", click.IntRange(0), "Number of this process, from 0."),
        ("--num-processes", click.IntRange(1), "How many processes train, on all machines."),
        ("--coordinator", str, "HOST:PORT on which process 0 waits for the others."),
        ("--local-processes", click.IntRange(1), "Train in so many processes on this machine."),
    ):
        metavar = "HOST:PORT" if kind is str else None
        default = "one process"
        command = click.option(option, type=kind, metavar=metavar, show_default=default, help=text)(
            command
        )
    return command


def places_of(
    local_processes: int | None,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> tuple[list[Place], list[str]] | None:
    """Returns the processes to start here and the options that ask for them again.

    None where neither options nor environment ask for several.

    Raises:
        click.UsageError: the options contradict each other.
        InputError: they, or the environment, make no sense.
    """
    remote = {
        "--coordinator": coordinator,
        "--num-processes": num_processes,
        "--process-id": process_id,
    }
    given = [name for name, value in remote.items() if value is not None]
    if local_processes is not None:
        if given:
            raise click.UsageError(f"--local-processes needs no {given[0]}; leave it out.")
        return local_places(local_processes), ["--local-processes", str(local_processes)]
    if given and len(given) < len(remote):
        missing = next(name for name in remote if name not in given)
        raise click.UsageError(f"{given[0]} needs {missing} too.")
    if given:
        words = [str(word) for pair in remote.items() for word in pair]
        return [make_place(str(coordinator), str(num_processes), str(process_id))], words
    place = read_place(os.environ)
    return ([place], []) if place else None


def mlflow_option(command: Callable) -> Callable:
    """Adds `--mlflow`, which commands have that make or evaluate runs."""
    text = "Keep the run in MLflow too, where $MLFLOW_TRACKING_URI says; needs the extra mlflow."
    return click.option("--mlflow", is_flag=True, help=text)(command)


def offline_option(command: Callable) -> Callable:
    """Adds `--offline`, which every command has that may fetch something."""
    return click.option("--offline", is_flag=True, help="Never use the network.")(command)


def make_config(values: Mapping[str, Any]) -> Config:
    """Makes the Config of those values that were given; the others are up to the backbone.

    Raises:
        click.UsageError: two of them contradict each other.
    """
    given = given_settings(click.get_current_context(), values)
    try:
        return Config.from_dict({name: values[name] for name in given})
    except InputError as error:
        raise click.UsageError(as_options(str(error), settings())) from error


def _load_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    # click's default_map: values of the file replace the defaults, options replace both.
    if path is not None:
        values = read_settings(path)
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
