"""One file a command: options to one call to an exit code."""

import importlib.util
import sys

from transfer.backend import INSTALL

if importlib.util.find_spec("click") is None:  # before the file that tells errors, which needs it
    sys.exit(f"Error: No module named 'click'; {INSTALL}.")
