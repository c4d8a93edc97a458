"""Trains and predicts on two machines, which are two network namespaces of this one.

    python -m tools.two_machines
    python -m tools.two_machines --only predict

As root, on Linux with iproute2. Training: each of two processes is started in a namespace of its
own by the command that a user types on two machines. Losses must be those of one process, to 1e-5.
Then the link is cut in the middle: both sides must end within 30 seconds, each with one line, and
what goes on when the link is there again must come to the same losses. Prediction: a Ray cluster of
two nodes with one processor each, one in each namespace, answers in shards; both must have
answered, and the answers must be those of one process.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from tools.kill_processes import MOST_SECONDS, OPTIONS, ROOT, losses_differ
from tools.kill_shards import SHARD_PHOTOS, SHARDS, read_shards, write_model, write_photos
from tools.kill_training import told_epochs, write_inputs
from tools.namespaces import ADDRESSES, FIRST, Namespaces, two_namespaces
from transfer.commands.predict import main as predict

TRAIN, PREDICT = "train", "predict"
COORDINATOR = f"{FIRST}:4242"
RAY = f"{FIRST}:6399"
# A token that the nodes and the command show each other; workers as urgent as all else here.
RAY_SETTINGS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_worker_niceness": "0"}
CUT_EPOCHS = 2  # that are told before the link is cut
_START_SECONDS = 120


def start(words: list[str], folder: Path, output: Path) -> subprocess.Popen:
    """Starts a command in a folder; `output` takes what it says, with `.errors` what goes wrong."""
    environment = {name: one for name, one in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(ROOT), "KERAS_HOME": str(folder / "keras"), **RAY_SETTINGS}
    environment.pop("KERAS_BACKEND", None)
    with open(output, "wb") as told, open(output.with_suffix(".errors"), "wb") as errors:
        return subprocess.Popen(words, cwd=folder, env=environment, stdout=told, stderr=errors)


class Training:
    """One training of two processes, each in a namespace of its own.

    Args:
        both: the namespaces.
        folder: with what `tools.kill_training.write_inputs` writes.
        words: of the command, without those that say which process it is.
    """

    def __init__(self, both: Namespaces, folder: Path, words: list[str]) -> None:
        self.outputs = [folder / f"machine{number}.txt" for number in (0, 1)]
        several = ["--coordinator", COORDINATOR, "--num-processes", "2", "--process-id"]
        script = [sys.executable, ROOT / "tests" / "tiny_train.py", *words, *several]
        self.processes = [
            start(both.command(number, [*script, number]), folder, self.outputs[number])
            for number in (0, 1)
        ]

    def wait_for(self, epochs: int) -> None:
        """Waits until so many are told."""
        deadline = time.monotonic() + _START_SECONDS
        while len(told_epochs(self.outputs[0])) < epochs:
            if time.monotonic() > deadline or any(one.poll() for one in self.processes):
                raise click.ClickException(f"it should begin. Received: {self.errors()}")
            time.sleep(0.05)

    def wait(self, seconds: float = _START_SECONDS) -> list[float]:
        """Returns after how many seconds each of the two had ended; those that hang are killed."""
        started = time.monotonic()
        took = []
        for process in self.processes:
            try:
                process.wait(max(0, started + seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
            took.append(time.monotonic() - started)
        return took

    def errors(self) -> list[str]:
        """Returns what each of the two said on standard error."""
        return [output.with_suffix(".errors").read_text() for output in self.outputs]

    def finish(self) -> None:
        """Waits for the end, and raises where it is a bad one."""
        self.wait()
        if any(process.returncode for process in self.processes):
            raise click.ClickException(f"it should end well. Received: {self.errors()}")


def train_on_two(both: Namespaces, folder: Path) -> bool:
    """Trains on two machines, cuts the link of a second training, and goes on with it.

    Returns:
        Whether all was as it should be; what was is printed.
    """
    write_inputs(folder)
    script = [sys.executable, str(ROOT / "tests" / "tiny_train.py")]
    alone = [*script, *OPTIONS, "--run-dir", "alone", "--local-processes", "1"]
    start(alone, folder, folder / "alone.txt").wait()
    Training(both, folder, [*OPTIONS, "--run-dir", "two"]).finish()
    good = _tell("losses of two machines are those of one", not _differ(folder, "two"))
    training = Training(both, folder, [*OPTIONS, "--run-dir", "cut"])
    training.wait_for(CUT_EPOCHS)
    both.cut()
    for number, seconds in enumerate(training.wait()):
        lines = training.errors()[number].splitlines()
        told = len(lines) == 1 and training.processes[number].returncode == 1
        ended = seconds < MOST_SECONDS and told
        good &= _tell(f"cut off, machine {number} ended after {seconds:.1f} s: {lines}", ended)
    both.mend()
    Training(both, folder, ["--resume", "cut"]).finish()
    return good & _tell("losses after going on are those of one", not _differ(folder, "cut"))


def _differ(folder: Path, name: str) -> bool:
    return losses_differ(folder / "alone", folder / name)


def _tell(what: str, holds: bool) -> bool:
    click.echo(f"{'yes' if holds else 'NO '}  {what}")
    return holds


# --- Ray ----------------------------------------------------------------------------------------


def start_ray(both: Namespaces, folder: Path) -> None:
    """Starts a Ray cluster of two nodes with one processor each; it ends with its namespaces."""
    head = ["--head", "--port", RAY.rpartition(":")[2], "--include-dashboard", "false"]
    for number, words in enumerate((head, ["--address", RAY])):
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus", "1"]
        command += ["--node-ip-address", ADDRESSES[number], "--disable-usage-stats", *words]
        output = folder / f"node{number}.txt"
        if start(both.command(number, command), folder, output).wait():
            raise click.ClickException(output.with_suffix(".errors").read_text())


def predict_on_two(both: Namespaces, folder: Path) -> bool:
    """Predicts in shards on a cluster of two nodes, and in one process.

    Returns:
        Whether all was as it should be; what was is printed.
    """
    write_model(folder / "model.tflite")
    write_photos(folder / "photos", SHARDS * SHARD_PHOTOS)
    for name in ("alone", "ray"):
        (folder / name).mkdir()
    words = [str(word) for word in _job(folder, "alone")]
    predict(words[1:] + ["--shard", "1/1"], standalone_mode=False)
    start_ray(both, folder)
    (folder / "machines").write_text(str(len(ADDRESSES)))
    output = folder / "ray.txt"
    command = [sys.executable, "-m", "tools.shards_job", *_job(folder, "ray"), "--ray", RAY]
    if start(both.command(0, command), folder, output).wait():
        raise click.ClickException(output.with_suffix(".errors").read_text())
    click.echo(output.read_text().strip())
    answers = [read_shards(folder / name / "answers.csv") for name in ("ray", "alone")]
    nodes = sorted(each.name for each in (folder / "nodes").iterdir())
    good = _tell(f"nodes that answered: {', '.join(nodes)}", nodes == list(ADDRESSES))
    same = len(answers[1]) == SHARDS * SHARD_PHOTOS and answers[0] == answers[1]
    return good & _tell(f"{len(answers[0])} answers are those of one", same)


def _job(folder: Path, name: str) -> list[object]:
    model, photos = folder / "model.tflite", folder / "photos"
    return ["predict", model, photos, "--csv", folder / name / "answers.csv"]


@click.command()
@click.option("--only", type=click.Choice([TRAIN, PREDICT]), help="One of the two.")
def main(only: str | None) -> None:
    """Train and predict on two machines, which are network namespaces of this one."""
    good = True
    with two_namespaces() as both:
        for what, run in ((TRAIN, train_on_two), (PREDICT, predict_on_two)):
            if only in (None, what):
                with tempfile.TemporaryDirectory() as folder:
                    good &= run(both, Path(folder))
    sys.exit(not good)


if __name__ == "__main__":
    main()
