"""What was probably meant by an option or a word that a command does not know.

Most of these words are those of other tools, whose settings bear other names here.
"""

import difflib

import click

# A word after "--" to the options that say the same here; a command has some of them.
MEANT: dict[str, tuple[str, ...]] = {
    "lr": ("head-learning-rate", "finetune-learning-rate"),
    "learning-rate": ("head-learning-rate", "finetune-learning-rate"),
    "lr0": ("head-learning-rate", "finetune-learning-rate"),
    "epochs": ("head-epochs", "finetune-epochs"),
    "epoch": ("head-epochs", "finetune-epochs"),
    "model": ("backbone",),
    "arch": ("backbone",),
    "network": ("backbone",),
    "imgsz": ("image-size",),
    "img-size": ("image-size",),
    "size": ("image-size",),
    "resolution": ("image-size",),
    "batch": ("batch-size",),
    "bs": ("batch-size",),
    "dataset": ("data",),
    "data-dir": ("data",),
    "input": ("data",),
    "out": ("run-dir",),
    "output": ("run-dir",),
    "output-dir": ("run-dir",),
    "name": ("run-dir",),
    "pretrained": ("weights",),
    "checkpoint": ("weights",),
    "patience": ("early-stopping-patience", "plateau-patience"),
    "val-split": ("validation-fraction",),
    "wd": ("l2",),
    "weight-decay": ("l2",),
    "amp": ("precision",),
    "fp16": ("precision",),
    "freeze": ("unfreeze",),
}


def improve(error: click.UsageError) -> click.UsageError:
    """Returns an error of click's with what was probably meant, where that can be told."""
    if isinstance(error, click.NoSuchOption):
        return _suggest_options(error)
    if isinstance(error, click.MissingParameter):  # whose choices are a line each
        return click.UsageError(" ".join(error.format_message().split()), error.ctx)
    if isinstance(error, click.BadParameter) and "is not one of" in error.message:
        return _suggest_choices(error)
    if error.message.startswith("Got unexpected extra argument") and _has(error, "--data"):
        told = f"{error.message}. Images are named by an option: --data PATH"
        return click.UsageError(told, error.ctx)
    if error.message.startswith("No such command"):
        return _suggest_commands(error)
    return error


def _suggest_options(error: click.NoSuchOption) -> click.UsageError:
    word = error.option_name.lstrip("-").replace("_", "-").lower()
    meant = [f"--{name}" for name in (word, *MEANT.get(word, ()))]
    known = [option for option in meant if _has(error, option)]
    if error.ctx and isinstance(error.ctx.command, click.Group):  # which has commands besides
        known += [name for name in error.ctx.command.list_commands(error.ctx) if name == word]
    if not known:
        return error
    told = f"No such option {error.option_name}. Did you mean {' or '.join(known)}?"
    return click.UsageError(told, error.ctx)


def _suggest_choices(error: click.BadParameter) -> click.UsageError:
    choices = getattr(error.param and error.param.type, "choices", ())
    word = error.message.split("'")[1].lower()
    close = difflib.get_close_matches(word, choices, 2)
    if not close:
        return error
    told = f"{error.message} Did you mean {' or '.join(close)}?"
    return click.BadParameter(told, error.ctx, error.param, error.param_hint)


def _suggest_commands(error: click.UsageError) -> click.UsageError:
    context = error.ctx
    if context is None or not isinstance(context.command, click.Group):
        return error
    word = error.message.split("'")[1]
    close = difflib.get_close_matches(word, context.command.list_commands(context), 1)
    if not close or "Did you mean" in error.message:
        return error
    return click.UsageError(f"{error.message} Did you mean {close[0]}?", context)


def _has(error: click.UsageError, option: str) -> bool:
    command = error.ctx.command if error.ctx else None
    return command is not None and any(option in param.opts for param in command.params)
