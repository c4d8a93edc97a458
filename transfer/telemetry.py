"""Libraries that report their use to their makers report nothing here.

Photos, models and that they exist are the user's: what needs the network says so and asks
(`storage/downloads.py`, `storage/packages.py`); nothing else leaves the machine.
"""

import os
import sys

_SWITCHES = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def send_nothing() -> None:
    """Turns it off in this process and in those it starts, before those libraries are imported."""
    os.environ |= _SWITCHES
    # OpenVINO has no such switch: each conversion tells Google Analytics. Without this package,
    # here not found, it takes an empty one of its own.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
