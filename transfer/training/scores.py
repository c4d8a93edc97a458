"""What the epochs of a run say: which one of a phase is best, and which phase.

The measure is the same everywhere: the validation loss, by which `EarlyStopping` puts the weights
of a phase's best epoch back.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transfer.runs.facts import PhaseSummary
from transfer.training.callbacks import SMALL

Rows = Sequence[Mapping[str, Any]]  # of history.csv


def best_row(rows: Rows, phase: str) -> Mapping[str, Any] | None:
    """Returns the epoch of a phase whose weights were put back, None where no loss is a number."""
    finite = [row for row in rows if row["phase"] == phase and math.isfinite(row["val_loss"])]
    return min(finite, key=lambda row: row["val_loss"], default=None)


def best_loss(rows: Rows, phase: str) -> float:
    """Returns the lowest validation loss of a phase, infinity where there is none."""
    row = best_row(rows, phase)
    return math.inf if row is None else float(row["val_loss"])


def best_phase(rows: Rows) -> str:
    """Returns the phase with the lowest validation loss, of equal ones the last.

    What was said of smaller images does not count: the next phase goes on from there.
    """
    phases = reversed(dict.fromkeys(row["phase"] for row in rows if row["phase"] != SMALL))
    return min(phases, key=lambda phase: best_loss(rows, phase))


def summarise(rows: Rows) -> dict[str, PhaseSummary]:
    """Returns what each phase came to, in order; each has an epoch whose loss is a number."""
    phases = {}
    for phase in dict.fromkeys(row["phase"] for row in rows):
        mine, best = [row for row in rows if row["phase"] == phase], best_row(rows, phase)
        if best is None:
            raise ValueError(f"phase {phase} should have a finite validation loss. Received: none.")
        phases[phase] = PhaseSummary(
            epochs=len(mine),
            best_epoch=best["epoch"],
            val_loss=best["val_loss"],
            val_accuracy=best["val_accuracy"],
            seconds=round(sum(row["seconds"] for row in mine), 1),
        )
    return phases
