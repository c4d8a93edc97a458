"""What predict and the app take, opened: a run, an exported file, or the included model."""

from pathlib import Path

from transfer import console
from transfer.deploy.choices import INCLUDED
from transfer.deploy.classifiers import Classifier, open_run
from transfer.deploy.engines import ENGINES, FACTS
from transfer.deploy.exported import open_exported
from transfer.deploy.fastest import fastest_export
from transfer.errors import InputError, printable


def open_classifier(model: str | Path) -> Classifier:
    """Opens what `transfer predict` takes.

    Args:
        model: a run folder, a file made by `transfer export` or its folder, or "included".

    Raises:
        InputError: it is none of these, or is damaged.
    """
    path = _model_of(Path(model))
    _refuse_saved_model(path)
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


def _model_of(path: Path) -> Path:
    # The folder of an export stands for the model in it.
    found = [path / f"model{suffix}" for suffix in ENGINES] if (path / FACTS).is_file() else []
    return next((one for one in found if one.is_file()), path)


def _refuse_saved_model(path: Path) -> None:
    # It may read and write files, and a stranger's would do so here.
    if (path / "saved_model.pb").is_file() or (path / "saved_model").is_dir():
        raise InputError(
            f"{path} is a SavedModel, for TensorFlow's serving; to name photos take the run, or "
            f"its export as {', '.join(ENGINES)}."
        )


def open_fastest(model: str | Path) -> Classifier:
    """Opens what answers soonest: of a run the export that `fastest_export` chooses.

    Arguments and errors as `open_classifier`.
    """
    path = Path(model)
    export = fastest_export(path) if str(model) != INCLUDED and path.is_dir() else None
    if export is None:
        return open_classifier(model)
    try:
        classifier = open_exported(export)
    except InputError as error:
        console.say(f"Answered by the run itself: {error}")
        return open_classifier(model)
    console.say(
        f"Answered by its fastest export that is as good as the run: {printable(str(export))}"
    )
    return classifier
