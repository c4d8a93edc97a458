"""Fine-tune pretrained image backbones and report honestly how good the result is.

    import transfer

    run = transfer.train(data="photos", backbone="mobilenetv2")
    print(run.evaluate().accuracy)
    run.report()

Every name here is loaded when it is first used, so that the import itself is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from transfer.telemetry import send_nothing
from transfer.version import __version__ as __version__

if TYPE_CHECKING:
    from transfer.api import Evaluation, Run, Search, audit, load, train, tune
    from transfer.config import Config
    from transfer.deploy.predict import Answer, predict
    from transfer.errors import InputError

_HOMES = {
    "Answer": "transfer.deploy.predict",
    "Config": "transfer.config",
    "Evaluation": "transfer.api",
    "InputError": "transfer.errors",
    "Run": "transfer.api",
    "Search": "transfer.api",
    "audit": "transfer.api",
    "load": "transfer.api",
    "predict": "transfer.deploy.predict",
    "train": "transfer.api",
    "tune": "transfer.api",
}
__all__ = [
    "Answer",
    "Config",
    "Evaluation",
    "InputError",
    "Run",
    "Search",
    "audit",
    "load",
    "predict",
    "train",
    "tune",
]

send_nothing()  # before any of those libraries is imported


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'transfer' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
