"""What differs between finished runs: settings beside results, read from their small files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer.config import settings
from transfer.formatting import format_percent, format_seconds
from transfer.runs.facts import Facts, Summary, read_facts, read_summary
from transfer.runs.folder import check_finished
from transfer.runs.predictions import Predictions, load_predictions

UNKNOWN = "–"


@dataclass(frozen=True)
class KnownRun:
    """What the small files of a finished run say.

    Attributes:
        run_dir: its folder.
        facts: of config.json.
        summary: of summary.json.
        tested: what was kept of its test images, None where they were not read yet.
    """

    run_dir: Path
    facts: Facts
    summary: Summary
    tested: Predictions | None

    def is_right(self) -> np.ndarray:
        """Returns whether each test image was predicted rightly, bool (N,)."""
        assert self.tested is not None
        return self.tested.y_prob.argmax(axis=1) == self.tested.y_true


def read_run(run_dir: Path) -> KnownRun:
    """Reads the small files of a finished run.

    Raises:
        InputError: there is no finished run, or its folder is damaged.
    """
    facts = read_facts(check_finished(run_dir))
    return KnownRun(run_dir, facts, read_summary(run_dir), load_predictions(run_dir, facts))


Row = tuple[str, list[str]]  # what it is, and the value of each run


def differing_settings(runs: Sequence[KnownRun]) -> list[Row]:
    """Returns what the runs were made with, where it is not the same in all of them.

    Settings are those that were trained with, "auto" settled.
    """
    rows = [(name, [_setting(run, name) for run in runs]) for name in settings()]
    rows += [
        ("images of the data", [run.facts.data.fingerprints["train"][-12:] for run in runs]),
        ("weights", [run.facts.weights.short for run in runs]),
        ("number format", [run.facts.precision for run in runs]),
        *(
            (f"version of {name}", [run.facts.versions.get(name, UNKNOWN) for run in runs])
            for name in dict.fromkeys(name for run in runs for name in run.facts.versions)
        ),
    ]
    told = {name: values for name, values in rows if len(set(values)) > 1}
    if "weights" in told:  # in more words than the setting has
        told.pop("weights")
        told["weights"] = dict(rows)["weights"]
    return list(told.items())


def _setting(run: KnownRun, name: str) -> str:
    value = getattr(run.facts.settled, name)
    return f"{value:g}" if isinstance(value, float) else str(value)


def results_of(runs: Sequence[KnownRun]) -> list[Row]:
    """Returns what the runs came to."""
    kinds: dict[str, Callable[[KnownRun], str]] = {
        "test accuracy": lambda run: format_percent(run.is_right().mean()) if run.tested else "",
        "validation accuracy": lambda run: format_percent(run.summary.kept_phase.val_accuracy),
        "validation loss": lambda run: f"{run.summary.kept_phase.val_loss:.4f}",
        "epochs": lambda run: " + ".join(str(one.epochs) for one in run.summary.phases.values()),
        "training time": lambda run: format_seconds(run.summary.seconds),
    }
    return [(name, [tell(run) or UNKNOWN for run in runs]) for name, tell in kinds.items()]


def have_same_test(runs: Sequence[KnownRun]) -> bool:
    """Returns whether all were evaluated, on the same test images with the same classes."""
    tests = {(run.facts.data.fingerprints["test"], run.facts.data.class_names) for run in runs}
    return len(tests) == 1 and all(run.tested is not None for run in runs)
