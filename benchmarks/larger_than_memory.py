"""Peak memory and seconds of the head phase by number of images that have room nowhere.

    python -m benchmarks.larger_than_memory --images 50000 --images 100000 --images 200000

Small PNG images are generated into Parquet files and trained on as if there were no room for their
pixels, in memory or on the disk, and none in memory for their features. Each number of images has a
process of its own; its memory is what it holds itself (RssAnon), not what the system keeps.
"""

import io
import json
import multiprocessing
import os
import re
import tempfile
import threading
import time
from pathlib import Path

import click
import numpy as np

FILE_IMAGES = 50_000  # in a Parquet file
GROUP_IMAGES = 1_000  # in a row group
SIDE, NUM_CLASSES = 8, 10
IMAGE_SIZE = 16  # what the network sees
BACKBONE = "cnn32"


def write_parquet(folder: Path, num_images: int) -> None:
    """Writes images of a square of noise, brighter for higher labels, in files of one size."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    generator = np.random.default_rng(0)
    for start in range(0, num_images, FILE_IMAGES):
        count = min(FILE_IMAGES, num_images - start)
        labels = generator.integers(0, NUM_CLASSES, count)
        noise = generator.integers(0, 80, (count, SIDE, SIDE))
        contents = []
        for pixels in np.uint8(noise + 17 * labels[:, None, None]):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
            contents.append(buffer.getvalue())
        table = pa.table({"image": contents, "label": labels})
        path = folder / f"train-{start // FILE_IMAGES:05d}.parquet"
        pq.write_table(table, path, row_group_size=GROUP_IMAGES)


class PeakMemory(threading.Thread):
    """The most that this process held itself, in bytes, looked at twenty times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0

    def run(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            self.most = max(self.most, int(re.search(r"RssAnon:\s+(\d+)", status)[1]) << 10)
            time.sleep(0.05)


def train(data: str, epochs: int, out: Path) -> None:
    """Runs the head phase, and writes seconds and peak memory."""
    peak = PeakMemory()
    peak.start()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KERAS_HOME"] = folder
        from transfer.backend import load_keras

        load_keras()
        from transfer.config import Config
        from transfer.data import decode
        from transfer.models.backbones import build_backbone
        from transfer.training import features
        from transfer.training.run import train as train_run

        decode._has_room = lambda num_bytes: False
        features.MEMORY_SHARE = 0
        weights = Path(folder, "random.weights.h5")
        build_backbone(BACKBONE, IMAGE_SIZE).save_weights(weights)
        config = Config(
            backbone=BACKBONE,
            data=data,
            weights=str(weights),
            image_size=IMAGE_SIZE,
            batch_size=256,
            head_epochs=epochs,
            finetune_epochs=0,
            flip=False,
        )
        before, started = peak.most, time.perf_counter()
        result = train_run(config, run_dir=Path(folder, "run"), keep_model=False)
        phase = result.summary.phases["head"]
        values = {
            "seconds": time.perf_counter() - started,
            "epoch": phase.seconds / phase.epochs,
            "before": before,
            "peak": peak.most,
            "val_accuracy": phase.val_accuracy,
        }
        out.write_text(json.dumps(values))


def measure(num_images: int, epochs: int) -> dict:
    """Returns what `train` came to on so many images."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(Path(folder), num_images)
        out = Path(folder, "values.json")
        process = context.Process(target=train, args=(folder, epochs, out))
        process.start()
        process.join()
        return {"images": num_images, **json.loads(out.read_text())}


@click.command()
@click.option("--images", multiple=True, type=int, default=(50_000, 100_000), show_default=True)
@click.option("--epochs", default=2, show_default=True, help="Of the head.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Keep the numbers.")
def main(images: tuple[int, ...], epochs: int, json_file: Path | None) -> None:
    """Measures the head phase and prints a table, and the line through its points."""
    click.echo("images  seconds  images/s  head epoch, s  peak, MB  above the start, MB")
    rows = []
    for num_images in images:
        row = measure(num_images, epochs)
        rows.append(row)
        above = (row["peak"] - row["before"]) / 1e6
        click.echo(
            f"{num_images:>6,}  {row['seconds']:>7.1f}  {num_images / row['seconds']:>8,.0f}  "
            f"{row['epoch']:>13.1f}  {row['peak'] / 1e6:>8,.0f}  {above:>19,.0f}"
        )
    if len(rows) > 1:
        counts = [row["images"] for row in rows]
        for what, scale, unit in (("peak", 1, "bytes"), ("seconds", 1e6, "µs")):
            slope, offset = np.polyfit(counts, [row[what] for row in rows], 1)
            click.echo(f"{what}: {slope * scale:,.1f} {unit} an image, from {offset:,.0f} on")
    if json_file:
        json_file.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
