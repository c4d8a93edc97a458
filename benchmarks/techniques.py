"""What each technique of fine-tuning is worth: one changed at a time, on validation images.

    python -m benchmarks.techniques [--technique mixup] [--limit 10000] [--folder runs/techniques]

All start from the same weights and take the same number of epochs. Runs that have finished are not
made again, and one that was stopped is resumed; of a technique that is no option
(`benchmarks/left_out.py`) it is begun again.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import transfer
from benchmarks import resumable
from transfer import console
from transfer.commands.exit_codes import run
from transfer.formatting import format_percent, format_seconds, format_spread
from transfer.report.document import Table
from transfer.runs import files
from transfer.runs.facts import PhaseSummary, read_summary

# All of it said, whatever the defaults are by now.
BASE: dict[str, object] = {
    "backbone": "mobilenetv2",
    "weights": "photos",
    "image-size": 64,
    "finetune-epochs": 4,
    "finetune-learning-rate": 3e-4,
    "optimizer": "adamw",
    "schedule": "cosine",
    "warm-up-fraction": 0.1,
    "rotation-degrees": 5,
    "zoom-fraction": 0.05,
    "translation-fraction": 0.05,
    "unfreeze": "all",
    "label-smoothing": 0,
}
PLAIN = {"rotation-degrees": 0, "zoom-fraction": 0, "translation-fraction": 0}
TECHNIQUES: dict[str, dict[str, object]] = {
    "as it is": {},
    "float32 alone": {"precision": "float32"},
    "the plateau": {"schedule": "plateau", "warm-up-fraction": 0},
    "no warm-up": {"warm-up-fraction": 0},
    "half the rate": {"finetune-learning-rate": 1.5e-4},
    "twice the rate": {"finetune-learning-rate": 6e-4},
    "lower blocks slower": {"finetune-learning-rate": 6e-4, "layer-decay": 0.85},
    "BatchNorm trained": {"train-batch-norm": True},
    "batches of 64": {"batch-size": 64},
    "flips alone": PLAIN,
    "mixup": {"mixup-alpha": 0.2},
    "CutMix": {"cutmix-alpha": 1.0},
    "label smoothing": {"label-smoothing": 0.1},
    "averaged weights": {"ema-momentum": 0.998},
    "erased rectangles": {"erase-probability": 0.25},
    "the upper 70 % alone": {"unfreeze": 0.7},
    "the upper half alone": {"unfreeze": 0.5},
    "small images first": {"small-epochs": 3, "small-image-size": 32, "finetune-epochs": 1},
}
DISTILLATION = "distillation"
TEACHERS = ("as it is", "half the rate", "twice the rate")  # runs of the same seed, made before
NO_OPTION = (
    "RandAugment",
    "smoothing that falls",
    "SAM",
    "mean of the last two epochs",
    DISTILLATION,
)
HEADER = ("technique", "head alone", "fine-tuned", "loss", "fine-tuning")


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--technique",
    "techniques",
    type=click.Choice([*TECHNIQUES, *NO_OPTION]),
    multiple=True,
    show_default="all",
    help="May be given more than once.",
)
@click.option("--limit", type=click.IntRange(100), help="Images of each split; default: all.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("runs/techniques"), show_default=True
)
def main(techniques: tuple[str, ...], limit: int | None, seeds: int, folder: Path) -> None:
    """Measure what techniques of fine-tuning are worth on Fashion-MNIST's validation images."""
    console.speak()
    rows = []
    for name in techniques or (*TECHNIQUES, *NO_OPTION):
        settings = BASE | TECHNIQUES.get(name, {}) | ({"limit": limit} if limit else {})
        found = []
        for seed in range(seeds):
            run_dir = _run_dir(folder, name, limit, seed)
            if name in NO_OPTION:
                teachers = [_run_dir(folder, each, limit, seed) for each in TEACHERS]
                _train_with(name, run_dir, settings | {"seed": seed}, teachers)
            else:
                resumable.train_once(run_dir, settings | {"seed": seed})
            found.append(read_summary(run_dir).phases)
        rows.append(_row(name, found))
        console.say(" | ".join(rows[-1]))
    Table(HEADER, (False, True, True, True, True), rows).show()


def _run_dir(folder: Path, name: str, limit: int | None, seed: int) -> Path:
    return folder / f"{name.replace(' ', '-').lower()}-{limit or 'all'}-{seed}"


def _train_with(
    name: str, run_dir: Path, settings: dict[str, Any], teachers: Sequence[Path]
) -> None:
    # In this process, in which the technique is put into what trains.
    from benchmarks import left_out  # imports TensorFlow, which a process that waits does not need

    if (run_dir / files.SUMMARY).is_file():
        return
    if name == DISTILLATION and not all((each / files.SUMMARY).is_file() for each in teachers):
        raise click.UsageError(f"--technique {name} learns from runs of {', '.join(TEACHERS)}.")
    shutil.rmtree(run_dir, ignore_errors=True)
    with left_out.distillation(teachers) if name == DISTILLATION else left_out.CONTEXTS[name]():
        transfer.train(
            run_dir=run_dir,
            verbose=True,
            **{option.replace("-", "_"): value for option, value in settings.items()},
        )


def _row(name: str, found: list[dict[str, PhaseSummary]]) -> tuple[str, ...]:
    last = [phases["fine-tune"] for phases in found]
    seconds = [sum(each.seconds for key, each in one.items() if key != "head") for one in found]
    return (
        name,
        _spread([phases["head"].val_accuracy for phases in found]),
        _spread([each.val_accuracy for each in last]),
        f"{sum(each.val_loss for each in last) / len(last):.4f}",
        format_seconds(sum(seconds) / len(seconds)),
    )


def _spread(accuracies: list[float]) -> str:
    return format_spread(accuracies) if accuracies[1:] else format_percent(accuracies[0])


if __name__ == "__main__":
    run(main, "python -m benchmarks.techniques")
