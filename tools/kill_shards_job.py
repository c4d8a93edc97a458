"""The command that `tools.kill_shards` kills: `transfer` with shards of a few photos on Ray."""

from tools.kill_shards import SHARD_PHOTOS
from transfer.commands import main
from transfer.commands.exit_codes import run
from transfer.deploy import on_ray

if __name__ == "__main__":
    on_ray.SHARD_PHOTOS = SHARD_PHOTOS
    run(main.main, "transfer")
