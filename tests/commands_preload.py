"""What the server of `tests.commands` imports once, without TensorFlow's start-up log."""

from transfer import cli

cli.load_tensorflow(verbose=False)

import transfer.training.train  # noqa: E402, F401
import transfer.tuning.search  # noqa: E402, F401
