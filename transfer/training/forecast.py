"""How long a run will take: told after the first seconds of each phase, for the whole run.

The frozen backbone's pass comes first and costs what is measured of it; what the later phases
cost follows from it until they are measured themselves.
"""

import time
from collections.abc import Callable, Mapping

from transfer.config import Config
from transfer.formatting import format_about
from transfer.training.callbacks import FINETUNE, HEAD, SMALL

# Against a pass of the frozen backbone over the same images, measured on two cores of a CPU:
# a fine-tuning step of all layers, and an epoch of the head (benchmarks/scale.py).
STEP_IN_PASSES, HEAD_EPOCH_IN_PASSES = 5.0, 0.03
SHORTEST = 30.0  # seconds; of less nobody needs a forecast
CHANGED = 0.2  # share of what is left by which an end must move to be told again

Foretell = Callable[[float, float], str]  # seconds an image, images left in the phase -> a line


class Forecast:
    """What is known of a run's speed so far.

    Args:
        config: "auto" settled.
        num_train: training images.
        num_validation: validation images.
    """

    def __init__(self, config: Config, num_train: int, num_validation: int) -> None:
        self.config, self.num_train, self.num_validation = config, num_train, num_validation
        self._pass: float | None = None  # seconds an image
        self._end: float | None = None  # as it was told last

    def during_pass(self, later: int) -> Foretell:
        """Returns what to call while the frozen backbone runs, and after it so many images."""

        def foretell(seconds: float, left: float) -> str:
            self._pass = seconds
            return self._tell(
                {"features": seconds * (left + later), HEAD: self._head(), **self._unfrozen()}
            )

        return foretell

    def during(self, phase: str) -> Foretell:
        """Returns what to call while a phase trains."""
        passes = self.num_validation / self.num_train / STEP_IN_PASSES  # validation costs too

        def foretell(seconds: float, left: float) -> str:
            if phase == HEAD:
                return self._tell({HEAD: seconds * left, **self._unfrozen()})
            parts = {phase: seconds * left * (1 + passes)}
            if phase == SMALL:
                images = self.config.finetune_epochs * self.num_train
                parts[FINETUNE] = seconds / self._share_of_pixels() * images * (1 + passes)
            return self._tell(parts)

        return foretell

    def _head(self) -> float:
        epochs = self.config.head_epochs * HEAD_EPOCH_IN_PASSES
        return epochs * self.num_train * (self._pass or 0.0)

    def _unfrozen(self) -> dict[str, float]:
        if not self.config.finetune_epochs or self._pass is None:
            return {}
        share = 1.0 if self.config.unfreeze == "all" else float(self.config.unfreeze)
        step = 1 + (STEP_IN_PASSES - 1) * share
        epoch = self._pass * (self.num_train * step + self.num_validation)
        small = self.config.small_epochs * epoch * self._share_of_pixels()
        later = {FINETUNE: self.config.finetune_epochs * epoch}
        return {SMALL: small, **later} if small else later

    def _share_of_pixels(self) -> float:
        # What a smaller image costs of one of --image-size.
        return (self.config.small_image_size / self.config.image_size) ** 2

    def _tell(self, parts: Mapping[str, float]) -> str:
        left, now = sum(parts.values()), time.time()
        if left < SHORTEST:
            return ""
        if self._end and abs(now + left - self._end) < max(CHANGED * left, SHORTEST):
            return ""
        self._end = now + left
        day = "%H:%M" if left < 12 * 3600 else "%A %H:%M"
        named = ", ".join(f"{name} {format_about(value)}" for name, value in parts.items())
        until = time.strftime(day, time.localtime(self._end))
        return f"Forecast: done in {format_about(left)}, at {until}, or sooner ({named})"
