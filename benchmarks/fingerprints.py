"""What the fingerprint of image files costs: processor time, with the files in memory and not.

    python -m benchmarks.fingerprints --files 5000 --bytes 100000

To drop files from the system's memory takes root and Linux; else both figures are of memory.
"""

import contextlib
import os
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from transfer.data.fingerprints import fingerprint
from transfer.data.splits import Split


def write_files(folder: Path, count: int, num_bytes: int) -> Split:
    """Writes files of random bytes, each another, and returns them as a split."""
    rest = np.random.default_rng(0).bytes(num_bytes - 8)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(number.to_bytes(8, "little") + rest)
    return Split(np.array([str(path) for path in paths], object), np.zeros(count, np.int64))


@click.command()
@click.option("--files", default=5000, show_default=True, help="How many.")
@click.option("--bytes", "num_bytes", default=100_000, show_default=True, help="Of each.")
def main(files: int, num_bytes: int) -> None:
    """Fingerprints files twice and prints the seconds of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        split = write_files(Path(folder), files, num_bytes)
        os.sync()
        for what in ("in memory", "from the disk"):
            if what != "in memory":
                with contextlib.suppress(OSError):
                    Path("/proc/sys/vm/drop_caches").write_text("1")
            started = time.process_time()
            fingerprint(split)
            click.echo(f"{what}: {time.process_time() - started:.2f} s")


if __name__ == "__main__":
    main()
