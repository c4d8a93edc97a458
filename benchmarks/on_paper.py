"""On paper: bytes, reads, hours and cost of a training by number of images and of processes.

    python -m benchmarks.on_paper
    python -m benchmarks.on_paper --disk 20 --memory 256

Nothing is trained here. What one process does was measured (`MEASURED` says by which command),
what several do is computed from it: images and features are divided evenly, and each step of
fine-tuning waits for its gradients. These go around in a ring, as Gloo and NCCL send them: each
process sends and receives 2 (N - 1) / N times their bytes (Patarasuk and Yuan 2009,
https://doi.org/10.1016/j.jpdc.2008.09.002). On CPUs each array of them goes around on its own, and
takes a time that does not depend on its size: that of two processes, so at least that of more.
"""

from dataclasses import dataclass

import click

IMAGES = (100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
PROCESSES = (1, 8, 64)
HEAD_EPOCHS, FINETUNE_EPOCHS = 10, 5
FEATURES = 1280  # of MobileNetV2, two bytes each
PARAMETERS = 2_270_794  # that have gradients, four bytes each; with a head of ten classes
ARRAYS = 54  # in which they are, BatchNorm frozen


@dataclass(frozen=True)
class Measured:
    """What one process of two cores does, and where it was measured.

    Attributes:
        pass_rate: images/s of the backbone's pass, MobileNetV2, 64 pixels, on JAX.
        step_rate: images/s of fine-tuning, likewise.
        array_seconds: what two processes take longer for each array of gradients.
        head_rate: images/s of an epoch of the head, from features.
        bytes_an_image: of memory in each process that grow with the images.
    """

    pass_rate: float
    step_rate: float
    array_seconds: float
    head_rate: float
    bytes_an_image: float


MEASURED = Measured(
    pass_rate=1_090,  # `python -m benchmarks.distribution --only speed`, docs/scale.md
    step_rate=97,  # the same
    array_seconds=(0.460 - 0.329) / ARRAYS,  # the same: loopback, less one process on both cores
    head_rate=54_000 * 10 / 13,  # `python -m benchmarks`, docs/speed.md
    bytes_an_image=255,  # `python -m benchmarks.larger_than_memory`
)


@dataclass(frozen=True)
class Machines:
    """What each process has.

    Attributes:
        image_bytes: of an encoded image.
        batch: images of a step in each process.
        link: Gbit/s, in each direction.
        memory: GB.
        disk: TB, for features.
        core_hour: what an hour of a core costs, in US$.
    """

    image_bytes: float
    batch: int
    link: float
    memory: float
    disk: float
    core_hour: float


def gradient_seconds(processes: int, link: float) -> float:
    """Returns what gradients add to a step.

    Args:
        processes: how many.
        link: Gbit/s.
    """
    if processes == 1:
        return 0.0
    sent = 2 * (processes - 1) / processes * PARAMETERS * 4
    return sent * 8 / (link * 1e9) + ARRAYS * MEASURED.array_seconds


def costs(images: int, processes: int, machines: Machines) -> dict[str, float]:
    """Returns what a training takes.

    Returns:
        read_tb: bytes of images that are read, of all processes, over all epochs; features_tb: of
        each process's disk; pass_hours, head_hours, finetune_hours; dollars.
    """
    step = machines.batch / MEASURED.step_rate
    steps = FINETUNE_EPOCHS * images / (machines.batch * processes)
    hours = {
        "pass_hours": images / (MEASURED.pass_rate * processes) / 3600,
        "head_hours": HEAD_EPOCHS * images / (MEASURED.head_rate * processes) / 3600,
        "finetune_hours": steps * (step + gradient_seconds(processes, machines.link)) / 3600,
    }
    return {
        "read_tb": images * machines.image_bytes * (1 + FINETUNE_EPOCHS) / 1e12,
        "features_tb": images * FEATURES * 2 / 1e12,
        **hours,
        "dollars": sum(hours.values()) * processes * 2 * machines.core_hour,
    }


def limits(machines: Machines) -> list[str]:
    """Returns where it stops, a sentence each."""
    step = machines.batch / MEASURED.step_rate
    by_disk = machines.disk * 1e12 / (FEATURES * 2)
    by_memory = machines.memory * 1e9 / MEASURED.bytes_an_image
    lines = [
        f"features fill a disk of {machines.disk:g} TB at {by_disk:,.0f} images: every process "
        "has those of all",
        f"places, labels and order of the images fill a memory of {machines.memory:g} GB at "
        f"{by_memory:,.0f} images: every process has those of all",
    ]
    for link in sorted({1, 10, machines.link}):
        share = step / (step + gradient_seconds(64, link))
        lines.append(
            f"gradients over {link:g} Gbit/s leave 64 processes {share:.0%} of 64 times the rate"
        )
    return lines


@click.command()
@click.option("--image-bytes", default=20_000, show_default=True, help="Of an encoded image.")
@click.option("--batch", default=32, show_default=True, help="Images of a step in each process.")
@click.option("--link", default=10.0, show_default=True, help="Gbit/s, in each direction.")
@click.option("--memory", default=64.0, show_default=True, help="GB, of each process.")
@click.option("--disk", default=2.0, show_default=True, help="TB, of each process.")
@click.option("--core-hour", default=0.04, show_default=True, help="What one costs, in US$.")
def main(**given: float) -> None:
    """Print what trainings would take, and where it stops."""
    machines = Machines(**given)  # type: ignore[arg-type]
    click.echo(
        "| images | processes | read, TB | features, TB | pass, h | head, h | fine, h | US$ |"
    )
    click.echo("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for images in IMAGES:
        for processes in PROCESSES:
            row = costs(images, processes, machines)
            cells = [f"{images:,}", f"{processes}", *(f"{value:,.3g}" for value in row.values())]
            click.echo(f"| {' | '.join(cells)} |")
    for line in limits(machines):
        click.echo(f"- {line}")


if __name__ == "__main__":
    main()
