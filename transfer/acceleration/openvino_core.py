"""OpenVINO, where it is installed: its version, and its core; without TensorFlow or Keras."""

import functools
import importlib.metadata
import re
from typing import Any

_LEAST = (2025, 2)  # as the extra `openvino` has it


@functools.cache
def installed_openvino() -> str:
    """Returns the version of OpenVINO that is installed, "" where there is none that is used."""
    try:
        version = importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return ""
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    return version if numbers >= _LEAST else ""


@functools.cache
def openvino_core() -> Any:
    """Returns OpenVINO's core, the only one of the process.

    The first network that one compiles gives the thread a stack for signals, taken away with the
    core. Of two cores that end in another order than they began, the memory of the first stays
    set, and the next signal ends the process with a segmentation fault (OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()
