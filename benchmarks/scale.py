"""Measures how the cost of training grows: with images, with pixels, with files, with epochs.

    python -m benchmarks.scale [--part images] [--output scale.json] [--plot docs/scale.png]

Every point is a real `train.py` in a process of its own, and a feature cache of its own, so that
nothing is left over from the one before and its peak memory is its own.
"""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.machine import describe_machine
from benchmarks.processes import Finished, run_command
from transfer.commands.exit_codes import run
from transfer.formatting import format_seconds
from transfer.plots import style
from transfer.storage.atomic import read_json, write_atomically, write_json

IMAGES, PIXELS, FOLDER, EPOCHS = PARTS = ("images", "pixels", "folder", "epochs")
NUM_CLASSES = 10  # of the folder
_FILE_SIDES = (80, 120)  # two sizes: so that all are brought to --image-size
_PASS = re.compile(r"features of .*?: ([\d,]+) images, ([\d,]+) images/s")
_EPOCH = re.compile(r"fine-tune \d+/\d+ .* ([\d,]+) images/s")


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--part",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    show_default="all",
    help="Measure this part alone; may be given more than once.",
)
@click.option(
    "--images",
    type=click.IntRange(50),
    multiple=True,
    default=(1_000, 10_000, 60_000),
    show_default=True,
    help="Numbers of images of the part images.",
)
@click.option(
    "--pixels",
    type=click.IntRange(32),
    multiple=True,
    default=(96, 160, 224),
    show_default=True,
    help="Sides of the images of the part pixels.",
)
@click.option(
    "--image-size",
    type=click.IntRange(32),
    default=96,
    show_default=True,
    help="Side of the images of the part images.",
)
@click.option(
    "--num-images",
    type=click.IntRange(50),
    default=5_000,
    show_default=True,
    help="Images of the part pixels.",
)
@click.option(
    "--files",
    type=click.IntRange(100),
    default=200_000,
    show_default=True,
    help="Image files of the part folder.",
)
@click.option(
    "--folder-image-size",
    type=click.IntRange(32),
    default=128,
    show_default=True,
    help="Side of the images of the part folder.",
)
@click.option(
    "--epochs",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="Fine-tune epochs of the part epochs.",
)
@click.option("--data", default="auto", show_default=True, help="As of train.py.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="none",
    help="JSON file; other parts that it holds already are kept.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="none",
    help="PNG file for the plot of the parts images and pixels.",
)
def main(
    parts: tuple[str, ...],
    images: tuple[int, ...],
    pixels: tuple[int, ...],
    image_size: int,
    num_images: int,
    files: int,
    folder_image_size: int,
    epochs: int,
    data: str,
    output: Path | None,
    plot: Path | None,
) -> None:
    """Measure seconds and memory of train.py against the size of its task."""
    location = _locate(data)
    results = read_json(output) if output and output.is_file() else {}
    results["machine"] = describe_machine()
    measure = {
        IMAGES: lambda: [measure_point(location, count, image_size, 128) for count in images],
        # Small batches: 128 images of 224 pixels take 9 GB.
        PIXELS: lambda: [measure_point(location, num_images, side, 32) for side in pixels],
        FOLDER: lambda: measure_folder(files, folder_image_size),
        EPOCHS: lambda: measure_epochs(location, epochs),
    }
    for part in parts or PARTS:
        click.echo(f"{part}:")
        results[part] = measure[part]()
        if output:
            write_json(output, results)  # after each part: the next takes minutes
    if plot and {IMAGES, PIXELS} <= set(results):
        from benchmarks.scale_plot import plot_scale

        figure = plot_scale(results[IMAGES], results[PIXELS])
        write_atomically(plot, style.png(figure))
        click.echo(f"Plot: {plot}")


def _locate(data: str) -> str:
    # Where the data is: a point's process has an empty Keras cache and would not find it there.
    from transfer.datasets.sources import load_undivided

    return load_undivided(data).location


def measure_point(data: str, num_images: int, image_size: int, batch_size: int) -> dict:
    """Trains both phases of the default recipe and returns what they cost.

    Returns:
        What `costs_told` returns; image_size, batch_size; seconds of the whole command;
        peak_bytes, peak_own_bytes of its process, as `Finished` says.
    """
    words = [
        *("--data", data, "--limit", num_images, "--image-size", image_size),
        *("--batch-size", batch_size, "--head-epochs", 10, "--early-stopping-patience", 10),
        *("--finetune-epochs", 2),  # the first one compiles
    ]
    finished = _train(words)
    costs = costs_told(finished)
    costs |= {"image_size": image_size, "batch_size": batch_size, **_memory(finished)}
    click.echo(
        f"  {costs['num_images']:,} training images, {image_size} pixels: a pass "
        f"{format_seconds(costs['pass_seconds'])}, a fine-tune epoch "
        f"{format_seconds(costs['epoch_seconds'])}; passes and ten head epochs are "
        f"{costs['head_phase_in_passes']:.2f} times the passes; {_tell_memory(finished)}"
    )
    return costs


def costs_told(finished: Finished) -> dict:
    """Returns the costs of a training run by what it said, and when.

    Returns:
        num_images: of training; pass_seconds: of the backbone over them once, compiled;
        all_passes_seconds: over training images, mirror images and validation images, compiling
        included; head_epochs_seconds: of all head epochs, validation included;
        head_phase_in_passes: both together in terms of the former; epoch_seconds: of the last
        fine-tune epoch, without validation.
    """
    passes = [_seconds_of(match) for match in _PASS.finditer(finished.text)]
    *_, last_pass = (line for line in finished.lines if _PASS.match(line.text))
    *_, last_head = (line for line in finished.lines if line.text.startswith("head "))
    mirror_pass = next(m for m in _PASS.finditer(finished.text) if "mirror" in m[0])
    *_, last_epoch = _EPOCH.finditer(finished.text)
    num_images = _number(mirror_pass[1])
    head_seconds = last_head.seconds - last_pass.seconds
    return {
        "num_images": num_images,
        "pass_seconds": _seconds_of(mirror_pass),
        "all_passes_seconds": sum(passes),
        "head_epochs_seconds": head_seconds,
        "head_phase_in_passes": 1 + head_seconds / sum(passes),
        "epoch_seconds": num_images / _number(last_epoch[1]),
    }


def measure_folder(num_files: int, image_size: int) -> dict:
    """Reads a folder of many image files, runs the backbone over them and trains a head.

    Returns:
        num_files, image_size; decoded_bytes: what the images would take in memory;
        ready_seconds: until all are decoded; peak_bytes, peak_own_bytes: of the process.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_image_folder(Path(folder, "photos"), num_files)
        words = [
            *("--data", Path(folder, "photos"), "--image-size", image_size, "--no-flip"),
            *("--head-epochs", 1, "--finetune-epochs", 0),
        ]
        finished = _train(words)
    values = {
        "num_files": num_files,
        "image_size": image_size,
        "decoded_bytes": num_files * image_size**2 * 3,
        "ready_seconds": finished.when("Classes: "),
        **_memory(finished),
    }
    click.echo(
        f"  {num_files:,} files, {image_size} pixels: decoded in "
        f"{format_seconds(values['ready_seconds'])} to {values['decoded_bytes'] / 1e9:.1f} GB; "
        f"{_tell_memory(finished)}"
    )
    return values


def write_image_folder(folder: Path, num_files: int) -> None:
    """Writes small PNG files of `NUM_CLASSES` classes: stripes of two colours, no two alike."""
    generator = np.random.default_rng(0)
    for label in range(NUM_CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    for number in range(num_files):
        label, side = number % NUM_CLASSES, _FILE_SIDES[number % len(_FILE_SIDES)]
        stripes = (np.arange(side) // (label + 2) % 2).astype(np.uint8)
        image = Image.fromarray(np.broadcast_to(stripes, (side, side)), "P")
        image.putpalette(generator.integers(0, 256, 6, np.uint8).tobytes())
        image.save(folder / f"class{label}" / f"{number}.png", compress_level=1)


def measure_epochs(data: str, epochs: int) -> dict:
    """Fine-tunes a small run for many epochs and returns the memory after each.

    Returns:
        memory_bytes: resident after each epoch; growth_bytes: from the second to the last.
    """
    words = [
        *("--data", data, "--limit", 640, "--image-size", 32, "--batch-size", 32),
        *("--head-epochs", 1, "--finetune-epochs", epochs, "--early-stopping-patience", epochs),
    ]
    finished = _train(words)
    memory = [line.memory_bytes for line in finished.lines if _EPOCH.match(line.text)]
    growth = memory[-1] - memory[1]
    click.echo(
        f"  {len(memory)} epochs: {memory[1] / 1e6:,.0f} MB after the second, "
        f"{memory[-1] / 1e6:,.0f} MB after the last, {growth / 1e6:+,.0f} MB"
    )
    return {"memory_bytes": memory, "growth_bytes": growth}


def _train(words: Iterable[object]) -> Finished:
    with tempfile.TemporaryDirectory() as folder:
        return run_command("train", [*words, "--run-dir", "run", "--verbose"], Path(folder))


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _seconds_of(match: re.Match) -> float:
    return _number(match[1]) / _number(match[2])


def _memory(finished: Finished) -> dict:
    names = ("seconds", "peak_bytes", "peak_own_bytes")
    return {name: getattr(finished, name) for name in names}


def _tell_memory(finished: Finished) -> str:
    own = f", {finished.peak_own_bytes / 1e9:.2f} of it in no file" * bool(finished.peak_own_bytes)
    return f"at most {finished.peak_bytes / 1e9:.2f} GB resident{own}"


if __name__ == "__main__":
    run(main)
