"""What the server of `tests.commands` imports once, without TensorFlow's start-up log."""

import gc

gc.disable()  # nothing of what is imported here goes away again

from transfer.backend import load_keras  # noqa: E402

load_keras()

import tensorboard.summary.writer.event_file_writer  # noqa: E402
import tensorflow.summary  # noqa: E402
import transfer.acceleration.adam  # noqa: E402
import transfer.acceleration.batch_norm  # noqa: E402
import transfer.api  # noqa: E402
import transfer.report.run_report  # noqa: E402, F401
import transfer.training.run  # noqa: E402, F401
import transfer.tuning.search  # noqa: E402, F401

gc.freeze()  # nor is it looked through again by each command
gc.enable()
