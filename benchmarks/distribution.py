"""Training in several processes: are its numbers those of one, and how many images a second?

    python -m benchmarks.distribution --only losses --dropout 0
    python -m benchmarks.distribution --only losses --dropout 0.5
    python -m benchmarks.distribution --only speed --plot docs/processes.png

Losses: a small network with both phases, on 205 images in batches of 32, the last of which four
processes cannot divide; turned, mixed (mixup), erased, with class weights; float32 throughout. "2
devices" are halves of one process's processor, which JAX takes for two devices, as it would GPUs.

Speed: steps of training, and of the backbone alone, of one process on one core and on two, of two
and four on two, which speak by loopback; and, for root on Linux with iproute2, of two in two
network namespaces, the link between them as fast as it can be, or shaped to 10 and 1 Gbit/s. A step
has as many images of all processes together, however many there are. No process is held to a core
of its own: what waits for an exchange would wait for what computes there, 4 ms for each array.
"""

import contextlib
import csv
import io
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import h5py
import numpy as np

from benchmarks.machine import describe_machine
from tools.kill_training import write_inputs
from tools.namespaces import FIRST, Namespaces, two_namespaces
from transfer.plots import style
from transfer.storage.atomic import read_json, write_atomically, write_json
from transfer.workers import Place, local_places

ROOT = Path(__file__).parents[1]
LOSSES = (
    "--backbone tiny --data stripes.npz --weights tiny.weights.h5 --image-size 32 --batch-size 32 "
    "--limit 205 --head-epochs 2 --finetune-epochs 2 --finetune-learning-rate 0.01 --offline "
    "--rotation-degrees 20 --mixup-alpha 0.4 --erase-probability 0.3 --class-weights "
    "--precision float32"
).split()
# Network, image size, images a step, and whether BatchNorm trains: then processes exchange the
# statistics of each such layer, forward and backward, besides the gradients.
SPEED = {
    "cnn32": ("cnn32", 32, 128, "trained"),
    "mobilenetv2": ("mobilenetv2", 64, 32, "frozen"),
}
MEASURE_SECONDS = 2.0  # about, of each number
LINKS = {"link, unshaped": 0.0, "10 Gbit/s": 10.0, "1 Gbit/s": 1.0}


def train(
    folder: Path, name: str, words: list[str], backend: str, processes: int = 0, devices: int = 1
) -> Path:
    """Trains in a process of its own, or several, and returns the run folder.

    Args:
        folder: with what `tools.kill_training.write_inputs` writes.
        name: of the run folder.
        words: of the command.
        backend: Keras's, of a single process.
        processes: how many; 0: one that is not watched.
        devices: into which JAX divides the processor of each process, as if they were GPUs.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_HOME": str(folder / "keras")}
    environment["START_ALIKE"] = ""  # read by the script
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    several = ["--local-processes", str(processes)] if processes else []
    environment |= {} if processes else {"KERAS_BACKEND": backend}
    script = str(ROOT / "tests" / "tiny_train.py")
    subprocess.run(
        [sys.executable, script, *words, "--run-dir", name, "--quiet", *several],
        cwd=folder,
        env=environment,
        check=True,
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
    ways: dict[str, tuple] = {f"JAX, {n} processes": ("jax", n) for n in (2, 4)}
    ways["JAX, 2 devices"] = ("jax", 0, 2)
    if not dropout:  # whose random numbers TensorFlow draws otherwise
        ways["TensorFlow"] = ("tensorflow",)
    one = train(folder, "one", words, "jax")
    for way, how in ways.items():
        other = train(folder, way, words, *how)
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


# --- Speed --------------------------------------------------------------------------------------


class Steps:
    """Processes of `benchmarks.distribution_steps` that train together.

    Args:
        network: a key of `SPEED`.
        cores: that each process may use.
        both: namespaces of two processes; none: all are here, and speak by loopback.
    """

    def __init__(
        self, network: str, cores: Sequence[Sequence[int]], both: Namespaces | None = None
    ) -> None:
        self.network = network
        self.num_cores = len({core for own in cores for core in own})
        places = local_places(len(cores))
        if both:
            places = [Place(f"{FIRST}:4242", 2, number) for number in (0, 1)]
        words = [sys.executable, "-m", "benchmarks.distribution_steps"]
        words += map(str, SPEED[network])
        self.processes = []
        for place, own in zip(places, cores, strict=True):
            command = ["taskset", "-c", ",".join(map(str, own)), *words]
            self.processes.append(
                subprocess.Popen(
                    both.command(place.process, command) if both else command,
                    cwd=ROOT,
                    env={**os.environ, "KERAS_BACKEND": "jax", **place.environment()},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
        self.parameters = [int(each.split()[1]) for each in self._lines()][0]

    def _lines(self) -> list[str]:
        lines = [each.stdout.readline() for each in self.processes if each.stdout]
        if not all(lines):
            raise click.ClickException(f"steps of {self.network} ended before their time")
        return lines

    def _seconds(self, what: str, count: int) -> float:
        for process in self.processes:
            assert process.stdin
            process.stdin.write(f"{what} {count}\n")
            process.stdin.flush()
        return max(map(float, self._lines()))

    def rate(self, what: str) -> float:
        """Returns images/s of all processes together, the median of three."""
        count = max(2, round(MEASURE_SECONDS / self._seconds(what, 2) * 2 / 3))
        seconds = statistics.median(self._seconds(what, count) for _ in range(3))
        return SPEED[self.network][2] * count / seconds

    def close(self) -> None:
        """Ends the processes."""
        for process in self.processes:
            process.kill()
            process.wait()


def measure_speed(networks: Sequence[str]) -> list[dict]:
    """Returns a row for each network, number of processes, cores and link.

    Returns:
        network, parameters, batch_size, processes, cores, link; step, pass: images/s.
    """
    rows = []
    for network in networks:
        for cores in ([[0]], [[0, 1]], [[0, 1]] * 2, [[0, 1]] * 4):
            rows += _measure(Steps(network, cores), {"loopback": 0.0}, None)
        try:
            with two_namespaces() as both:
                rows += _measure(Steps(network, [[0, 1]] * 2, both), LINKS, both)
        except OSError as error:
            click.echo(f"no links: network namespaces are for root, with iproute2: {error}")
    return rows


def _measure(steps: Steps, links: Mapping[str, float], both: Namespaces | None) -> list[dict]:
    rows = []
    with contextlib.closing(steps):
        looked = steps.rate("pass")  # in which nothing is sent
        for link, gigabits in links.items():
            if both:
                both.shape(gigabits)
            row = {
                "network": steps.network,
                "parameters": steps.parameters,
                "batch_size": SPEED[steps.network][2],
                "processes": len(steps.processes),
                "cores": steps.num_cores,
                "link": link,
                "step": steps.rate("step"),
                "pass": looked,
            }
            rows.append(row)
            _tell(row)
    return rows


def _tell(row: Mapping) -> None:
    milliseconds = 1e3 * row["batch_size"] / row["step"]
    click.echo(
        f"{row['network']:12} {row['processes']} processes, {row['cores']} cores, "
        f"{row['link']:14}  training {row['step']:7,.0f} images/s, {milliseconds:7,.1f} ms a step; "
        f"features {row['pass']:7,.0f} images/s"
    )


@click.command()
@click.option("--only", type=click.Choice(["losses", "speed"]), help="One of the two.")
@click.option("--dropout", default=0.5, show_default=True, help="Of the losses' networks.")
@click.option("--network", "networks", type=click.Choice(list(SPEED)), multiple=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file; others' rows are kept.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG file for the plot of --output.")
def main(
    only: str | None,
    dropout: float,
    networks: tuple[str, ...],
    output: Path | None,
    plot: Path | None,
) -> None:
    """Compare training in several processes with training in one."""
    if only != "speed":
        with tempfile.TemporaryDirectory() as folder:
            print_losses(Path(folder), dropout)
    if only == "losses":
        return
    chosen = networks or tuple(SPEED)
    kept = read_json(output)["rows"] if output and output.is_file() else []
    rows = [row for row in kept if row["network"] not in chosen] + measure_speed(chosen)
    if output:
        write_json(output, {"machine": describe_machine(), "rows": rows})
    if plot:
        from benchmarks.distribution_plot import plot_speed

        write_atomically(plot, style.png(plot_speed(rows)))
        click.echo(f"Plot: {plot}")


if __name__ == "__main__":
    main()
