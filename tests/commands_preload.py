"""What the server of `tests.commands` imports once, without TensorFlow's start-up log."""

import gc
import importlib

gc.disable()  # nothing of what is imported here goes away again

from transfer.backend import load_keras  # noqa: E402

load_keras()

for name in (
    "tensorboard.summary.writer.event_file_writer",
    "tensorflow.summary",
    "transfer.acceleration.adam",
    "transfer.acceleration.batch_norm",
    "transfer.api",
    "transfer.report.run_report",
    "transfer.training.run",
    "transfer.tuning.search",
):
    importlib.import_module(name)

gc.freeze()  # nor does each command look through it again
gc.enable()
