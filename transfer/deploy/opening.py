"""What predict and the app take, opened: a run, an exported file, or the included model."""

from pathlib import Path

from transfer.deploy.choices import INCLUDED
from transfer.deploy.classifiers import Classifier, open_run
from transfer.deploy.exported import open_exported


def open_classifier(model: str | Path) -> Classifier:
    """Opens what `transfer predict` takes.

    Args:
        model: a run folder, a file made by `transfer export`, or "included".

    Raises:
        InputError: it is none of these, or is damaged.
    """
    path = Path(model)
    if str(model) != INCLUDED and not path.is_dir():
        return open_exported(path)
    from transfer.runs.folder import check_finished

    if str(model) != INCLUDED:
        check_finished(path)  # before anything slow
    from transfer.backend import load_keras

    load_keras()
    from transfer.runs.finished import FinishedRun
    from transfer.runs.included import unpack_included

    return open_run(FinishedRun(unpack_included() if str(model) == INCLUDED else path))
