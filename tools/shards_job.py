"""The command of the tools that try Ray: `transfer` with shards of a few photos.

Which machines answered is written beside the model, in the folder `nodes`. Where a file `machines`
beside it says how many there are, an answer waits until each of them has one to give: the first to
be ready could otherwise answer all.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.kill_shards import SHARD_PHOTOS
from transfer.commands import main
from transfer.commands.exit_codes import run
from transfer.deploy import on_ray

LONGEST_WAIT = 60.0  # seconds


class Witness(on_ray.Worker):
    """A worker that leaves the address of its machine; Ray carries it there, as a script's own."""

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a worker returns."""
        import ray

        folder = Path(row["work"].models[0]).parent
        nodes, machines = folder / "nodes", folder / "machines"
        nodes.mkdir(exist_ok=True)
        (nodes / ray.util.get_node_ip_address()).touch()
        expected = int(machines.read_text()) if machines.exists() else 1
        end = time.monotonic() + LONGEST_WAIT
        while len(list(nodes.iterdir())) < expected and time.monotonic() < end:
            time.sleep(0.1)
        return super().__call__(row)


if __name__ == "__main__":
    on_ray.SHARD_PHOTOS = SHARD_PHOTOS
    on_ray.Worker = Witness  # type: ignore[misc]
    run(main.main, "transfer")
