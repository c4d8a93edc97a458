"""What the server of `tests.commands` imports once, without TensorFlow's start-up log."""

from transfer.backend import load_keras

load_keras()

import transfer.api  # noqa: E402
import transfer.report.run_report  # noqa: E402, F401
import transfer.training.run  # noqa: E402, F401
import transfer.tuning.search  # noqa: E402, F401
