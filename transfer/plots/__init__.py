"""Arrays in, figures out.

$MPLBACKEND is for windows and notebooks. Of a figure without pyplot it decides nothing, but one
that Matplotlib does not know would end its import.
"""

import contextlib
import importlib
import os
import sys


def _import_matplotlib() -> None:
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        matplotlib = importlib.import_module("matplotlib")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # for what the user draws in this notebook


_import_matplotlib()
