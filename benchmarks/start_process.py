"""One start of `train.py`, in a process of its own that ends with the first step of fine-tuning.

    python benchmarks/start_process.py BEGAN CHECKOUT OUTPUT.json [OPTION]...

It runs the command of a checkout, this one or an older, and looks on where doors open that both
have. BEGAN is the time of typing, in seconds since 1970.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAD_STEP, FINETUNE_STEP = "first head step, all before it included", "first fine-tune step, all"
PARTS = (
    "import",
    "data",
    "build",
    "features",
    "trace of the head",
    HEAD_STEP,
    "head epoch",
    "build for fine-tuning",
    "trace of fine-tuning",
    FINETUNE_STEP,
)


class Clock:
    """Divides the time since the command was typed into parts.

    Args:
        began: in seconds since 1970.
        output: the file that takes the parts, as JSON.
    """

    def __init__(self, began: float, output: Path) -> None:
        self._began = self._last = began
        self._output, self._parts = output, dict.fromkeys(PARTS, 0.0)

    def ends(self, part: str) -> None:
        """Gives a part what has passed since the one before it ended."""
        now = time.time()
        self._parts[part] += now - self._last
        self._last = now

    def reaches(self, step: str) -> None:
        """Notes what has passed since the command was typed."""
        self._parts[step] = self._last - self._began

    def finish(self) -> None:
        """Writes the parts and ends the process."""
        self._output.write_text(json.dumps(self._parts))
        os._exit(0)


def _around(module: Any, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    # Has both called around a function of a module.
    inner = getattr(module, name)

    def outer(*arguments: Any, **options: Any) -> Any:
        before()
        result = inner(*arguments, **options)
        after()
        return result

    setattr(module, name, outer)


def _watch(clock: Clock) -> None:
    # Keras is there: what follows is divided.
    import keras

    from transfer.training import run

    _around(run, "load_data", lambda: clock.ends("import"), lambda: clock.ends("data"))
    _around(
        run,
        "load_head_features",
        lambda: clock.ends("build"),
        lambda: clock.ends("features"),
    )
    fit = keras.Model.fit

    class FirstStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if self.model.name == "head" and not hasattr(self, "seen"):
                self.seen = True
                clock.ends("trace of the head")
                clock.reaches(HEAD_STEP)
            elif self.model.name != "head":
                clock.ends("trace of fine-tuning")
                clock.reaches(FINETUNE_STEP)
                clock.finish()

    def watched(model: keras.Model, *arguments: Any, callbacks: Any = (), **options: Any) -> Any:
        clock.ends("trace of the head" if model.name == "head" else "build for fine-tuning")
        done = fit(model, *arguments, callbacks=[*callbacks, FirstStep()], **options)
        clock.ends("head epoch")
        return done

    keras.Model.fit = watched


def main(began: str, checkout: str, output: str, *words: str) -> None:
    """Runs the command of a checkout up to the first step of fine-tuning."""
    clock = Clock(float(began), Path(output))
    sys.path[0] = checkout  # not that of this file
    import transfer.backend

    _around(transfer.backend, "load_keras", lambda: None, lambda: _watch(clock))
    from transfer.commands.main import run_script

    epochs = ["--head-epochs", "1", "--finetune-epochs", "1"]
    sys.argv = [str(Path(checkout) / "train.py"), *words, *epochs, "--run-dir", f"{output}.run"]
    run_script("train")


if __name__ == "__main__":
    main(*sys.argv[1:])
