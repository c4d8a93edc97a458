"""Training in several processes: are its numbers those of one, and how many images a second?

    python -m benchmarks.distribution --only losses --dropout 0
    python -m benchmarks.distribution --only losses --dropout 0.5
    python -m benchmarks.distribution --only speed

Losses: a small network with both phases, on 205 images in batches of 32, the last of which four
processes cannot divide; turned, mixed (mixup), erased, with class weights. Speed: `cnn32` on
Fashion-MNIST, second epoch, its validation included, on one core and on two.
"""

import contextlib
import csv
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import click
import h5py
import numpy as np

from tools.kill_training import write_inputs

ROOT = Path(__file__).parents[1]
LOSSES = (
    "--backbone tiny --data stripes.npz --weights tiny.weights.h5 --image-size 32 --batch-size 32 "
    "--limit 205 --head-epochs 2 --finetune-epochs 2 --finetune-learning-rate 0.01 --offline "
    "--rotation-degrees 20 --mixup-alpha 0.4 --erase-probability 0.3 --class-weights"
).split()
SPEED = "--backbone cnn32 --limit 6000 --finetune-epochs 2 --batch-size 128 --offline".split()


def train(folder: Path, name: str, words: list[str], backend: str, processes: int, cores: int = 0):
    """Trains in a process of its own, or several, and returns the run folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_HOME": str(folder / "keras")}
    several = ["--local-processes", str(processes)] if processes else []
    environment |= {} if processes else {"KERAS_BACKEND": backend}
    script = str(ROOT / "tests" / "tiny_train.py")
    subprocess.run(
        [sys.executable, script, *words, "--run-dir", name, "--quiet", *several],
        cwd=folder,
        env=environment,
        check=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, range(cores))) if cores else None,
    )
    return folder / name


def read_history(run_dir: Path) -> list[dict[str, str]]:
    """Returns the rows of history.csv."""
    with open(run_dir / "history.csv") as file:
        return list(csv.DictReader(file))


def read_weights(run_dir: Path) -> dict[str, np.ndarray]:
    """Returns the weights of model.keras by name."""
    weights = {}
    with zipfile.ZipFile(run_dir / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(lambda name, each: weights.update({name: each}))
        arrays = {name: each for name, each in weights.items() if isinstance(each, h5py.Dataset)}
        return {name: each[()] for name, each in arrays.items() if each.dtype.kind == "f"}


def print_losses(folder: Path, dropout: float) -> None:
    """Prints how far each way of training is from JAX in one process."""
    write_inputs(folder)
    words = [*LOSSES, "--dropout", str(dropout)]
    ways = {f"JAX, {n} processes": ("jax", n) for n in (2, 4)}
    if not dropout:  # whose random numbers TensorFlow draws otherwise
        ways["TensorFlow"] = ("tensorflow", 0)
    one = train(folder, "one", words, "jax", 0)
    for way, (backend, processes) in ways.items():
        other = train(folder, f"{backend}{processes}", words, backend, processes)
        apart = [
            max(abs(float(a[name]) - float(b[name])) for name in ("loss", "val_loss"))
            for a, b in zip(read_history(one), read_history(other), strict=True)
        ]
        mine, theirs = read_weights(one), read_weights(other)
        weights = max(np.abs(mine[name] - theirs[name]).max() for name in mine)
        click.echo(
            f"dropout {dropout:g}  {way:16}  losses, head {max(apart[:2]):.1e}, "
            f"fine-tune {max(apart[2:]):.1e}; weights {weights:.1e}"
        )


def print_speed(folder: Path) -> None:
    """Prints images a second by processes and cores."""
    cases = ((0, 1), (0, 2), (2, 2), (4, 2))
    for processes, cores in cases:
        run_dir = train(folder, f"{processes}-{cores}", SPEED, "jax", processes, cores)
        seconds = float(read_history(run_dir)[1]["seconds"])
        rate = f"{6000 / seconds:,.0f} images/s"
        click.echo(f"processes {max(processes, 1)}, cores {cores}: {rate}")


@click.command()
@click.option("--only", type=click.Choice(["losses", "speed"]), help="One of the two.")
@click.option("--dropout", default=0.5, show_default=True, help="Of the losses' networks.")
def main(only: str | None, dropout: float) -> None:
    """Compare training in several processes with training in one."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if only != "speed":
            print_losses(folder, dropout)
        if only != "losses":
            print_speed(folder)


if __name__ == "__main__":
    main()
