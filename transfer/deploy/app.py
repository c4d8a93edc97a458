"""A page on this machine on which photos are named: `transfer app`.

Gradio draws it. Nothing leaves the machine: fonts are the system's, analytics are off, and the
page works with the network closed. Photos are decoded from the very files that were sent, by the
function that decodes the data set.
"""

import json
import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from transfer.deploy.answers import answers_csv
from transfer.deploy.classifiers import Classifier
from transfer.deploy.photos import Photos, to_picture
from transfer.deploy.predict import (
    NONE_OF_THESE,
    UNSURE,
    Answer,
    PredictOptions,
    answer_photos,
    count_answers,
)
from transfer.errors import InputError
from transfer.runs import files
from transfer.storage.remote import is_url
from transfer.storage.untrusted import read_regular

if TYPE_CHECKING:
    import gradio

    from transfer.deploy.nearest import TrainingImages

MOST_BYTES = "20mb"  # of a photo that is sent
MOST_PHOTOS = 200  # at once
NUM_EXAMPLES = 6
MOST_CARD_BYTES = 1 << 20
TOP = 5
_KEPT_SECONDS = 3600  # that photos lie on the disk
# As many similar images in a row as have room: six on a desk, two on a phone.
_CSS = """
#nearest .grid-container {
    grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)) !important;
    grid-template-rows: none !important;
}
#nearest .grid-wrap { min-height: 0 !important }
"""
WHY = {
    UNSURE: "unknown: not sure enough",
    NONE_OF_THESE: "unknown: unlike all that it was trained on",
}


@dataclass(frozen=True)
class Page:
    """What the page has.

    Attributes:
        classifiers: by the name that they are chosen by; the first is shown first.
        examples: paths of photos to begin with.
        training: training images of those that are runs and have theirs still, by the same name.
    """

    classifiers: dict[str, Classifier]
    examples: tuple[str, ...] = ()
    training: "dict[str, TrainingImages]" = field(default_factory=dict)


def make_page(classifiers: Sequence[Classifier], folder: Path) -> Page:
    """Returns the page of some classifiers.

    Args:
        classifiers: one or several.
        folder: where examples from the first run's test images are written to.
    """
    named: dict[str, Classifier] = {}
    for one in classifiers:
        name = one.facts.name
        number = sum(kept.split(" (")[0] == name for kept in named)
        named[f"{name} ({number + 1})" if number else name] = one
    return Page(named, _write_examples(classifiers[0], folder), _load_training(named))


def _load_training(named: dict[str, Classifier]) -> "dict[str, TrainingImages]":
    runs = {name: one.run for name, one in named.items() if one.run}
    if not runs:
        return {}
    from transfer.deploy.nearest import load_training_images

    loaded = {name: load_training_images(run) for name, run in runs.items()}
    return {name: images for name, images in loaded.items() if images}


def _write_examples(classifier: Classifier, folder: Path) -> tuple[str, ...]:
    if classifier.run is None:
        return ()
    try:
        test = classifier.run.splits.test
        chosen = np.unique(np.linspace(0, test.num_images - 1, NUM_EXAMPLES).astype(int))
        images = classifier.run.examples("test", chosen)
    except InputError:  # its data are gone
        return ()
    paths = []
    for number, image in enumerate(images):
        path = folder / f"example-{number + 1}.png"
        to_picture(image).save(path)
        paths.append(str(path))
    return tuple(paths)


def build_app(page: Page) -> "gradio.Blocks":
    """Returns the page as Gradio has it, not yet served."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gradio

    names, answerer = list(page.classifiers), _Answerer(page)
    with gradio.Blocks(
        title="transfer", analytics_enabled=False, delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)
    ) as app:
        gradio.Markdown("# What is on this photo?")
        model = gradio.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
        with gradio.Tab("One photo"):
            _build_one(gradio, page, model, answerer)
        with gradio.Tab("Several photos"):
            _build_several(gradio, model, answerer)
        with gradio.Tab("About the model"):
            about = gradio.Markdown(about_model(page.classifiers[names[0]]))
            # As code: a card may come from a stranger, and its pictures would be fetched.
            card = gradio.Code(
                model_card(page.classifiers[names[0]]),
                language="markdown",
                label="Model card",
                interactive=False,
                visible=any(model_card(one) for one in page.classifiers.values()),
            )
            model.change(
                lambda name: [show(page.classifiers[name]) for show in (about_model, model_card)],
                model,
                [about, card],
                api_visibility="private",
            )
    app.queue(default_concurrency_limit=4)
    return app


def _build_one(gradio: Any, page: Page, model: Any, answerer: "_Answerer") -> None:
    with gradio.Row():
        with gradio.Column():
            photo = gradio.Image(
                type="filepath",
                sources=["upload", "clipboard", "webcam"],
                label="Drop, paste or take a photo",
                elem_id="photo",
                height=320,
            )
            # Gradio would decode and convert it before anybody has looked at its size.
            photo.preprocess = lambda sent: sent.path if sent else None
            _take_no_address(photo)
            if page.examples:
                gradio.Examples([[path] for path in page.examples], photo, label="Test images")
        with gradio.Column():
            verdict = gradio.Markdown(elem_id="verdict")
            bars = gradio.Label(
                num_top_classes=TOP, label="Confidence", show_heading=False, elem_id="bars"
            )
            has_run = any(one.run is not None for one in page.classifiers.values())
            overlay = gradio.Image(
                label="What speaks for it (Grad-CAM)",
                visible=has_run,
                interactive=False,
                buttons=["download", "fullscreen"],
                height=320,
                elem_id="overlay",
            )
    nearest = _build_nearest(gradio, page)
    gradio.on(
        [photo.change, model.change],  # else another model's answer would stay
        answerer.show,
        [model, photo],
        [verdict, bars, overlay, nearest],
        api_visibility="private",
        show_progress="hidden",
    )
    answer = gradio.JSON(visible=False)
    hidden = gradio.Button(visible=False)
    hidden.click(answerer.to_json, [photo, model], answer, api_name="predict")


def _take_no_address(sent: Any) -> None:
    # Gradio fetches what a program names by its address in place of a file.
    move = sent.async_move_resource_to_block_cache

    async def refuse(path: str | Path | None) -> Any:
        _check_no_address(path)
        return await move(path)

    sent.async_move_resource_to_block_cache = refuse


def _check_no_address(path: str | Path | None) -> None:
    import gradio

    if is_url(str(path)):
        raise gradio.Error(
            "A photo should be sent. Received: its address, which is not fetched.",
            print_exception=False,
        )


def _build_nearest(gradio: Any, page: Page) -> Any:
    counts = " or ".join(dict.fromkeys(f"{len(one):,}" for one in page.training.values()))
    # The gallery's own label lies over its first pictures.
    gradio.Markdown(
        f"The most similar of {counts} training images, with their classes and cosines",
        visible=bool(page.training),
    )
    return gradio.Gallery(
        show_label=False,
        visible=bool(page.training),
        columns=6,
        height="auto",
        interactive=False,
        elem_id="nearest",
    )


def _build_several(gradio: Any, model: Any, answerer: "_Answerer") -> None:
    photos = gradio.File(
        file_count="multiple", label=f"Up to {MOST_PHOTOS} photos", elem_id="photos"
    )
    _take_no_address(photos)
    count = gradio.Markdown(elem_id="count")
    table = gradio.Dataframe(
        headers=["photo", "answer", "confidence"],
        interactive=False,
        elem_id="table",
        wrap=True,
        column_widths=["40%", "40%", "20%"],
    )
    written = gradio.File(label="All answers as CSV", elem_id="csv")
    gradio.on(
        [photos.change, model.change],
        answerer.show_several,
        [model, photos],
        [count, table, written],
        api_visibility="private",
    )


class _Answerer:
    # What the page asks for; one photo, or batch of them, is at the network at a time.
    def __init__(self, page: Page) -> None:
        self._page, self._lock = page, threading.Lock()

    def answers(
        self, name: str, paths: Sequence[str], beside: "_Beside | None" = None
    ) -> list[Answer]:
        """Returns the answers, and puts what the page shows beside one into `beside`."""
        import gradio

        for path in paths:
            _check_no_address(path)
        if name not in self._page.classifiers:
            raise gradio.Error("There is no such model.", print_exception=False)
        classifier = self._page.classifiers[name]
        if beside and classifier.run:
            beside.run, beside.training = classifier.run, self._page.training.get(name)
        explain = beside.fill if beside and beside.run else None
        with self._lock:
            try:
                return list(
                    answer_photos([classifier], paths, PredictOptions(TOP, explain=explain))
                )
            except InputError as error:
                raise gradio.Error(str(error), print_exception=False) from error

    def one(self, name: str, path: str | None) -> Answer:
        """Returns the answer for one photo, or tells why it cannot be read."""
        import gradio

        if not path:
            raise gradio.Error("A photo should be sent. Received: none.", print_exception=False)
        (answer,) = self.answers(name, [path])
        if answer.error:
            raise gradio.Error(f"This is no photo: {answer.error}.", print_exception=False)
        return answer

    def show(self, name: str, path: str | None) -> tuple[Any, ...]:
        """Returns verdict, bars, overlay and the most similar training images.

        Of what cannot be read it says so there: an error would leave the answer before it.
        """
        if not path:
            return "", None, None, None
        beside = _Beside()
        (answer,) = self.answers(name, [path], beside)
        return verdict(answer), dict(answer.ranked), beside.overlay, beside.nearest

    def to_json(self, path: str | None, name: str) -> dict[str, Any]:
        """Returns the answer for programs."""
        return {
            key: value for key, value in self.one(name, path).to_json().items() if key != "path"
        }

    def show_several(self, name: str, paths: list[str] | None) -> tuple[str, Any, str | None]:
        """Returns what became of them, a table, and the path of a CSV."""
        import gradio

        if not paths:
            return "", None, None
        if len(paths) > MOST_PHOTOS:
            raise gradio.Error(f"At most {MOST_PHOTOS} photos at once.", print_exception=False)
        answers = self.answers(name, paths)
        told = [
            Answer(**{**vars(answer), "path": os.path.basename(answer.path)}) for answer in answers
        ]
        rows = [[one.path, verdict(one, plain=True), f"{one.confidence:.3f}"] for one in told]
        written = Path(tempfile.mkdtemp(dir=_cache_folder()), "answers.csv")
        written.write_text(answers_csv(told), encoding="utf-8")
        return count_answers(told), rows, str(written)


def _cache_folder() -> str:
    from gradio.utils import get_upload_folder

    folder = get_upload_folder()
    os.makedirs(folder, exist_ok=True)
    return str(folder)


@dataclass
class _Beside:
    # What the page shows beside the answer of a run: filled while the photo is at the network.
    run: Any = None
    training: "TrainingImages | None" = None
    overlay: Image.Image | None = None
    nearest: list[tuple[Image.Image, str]] | None = None

    def fill(self, photos: Photos, paths: Sequence[str], classes: np.ndarray) -> None:
        from transfer.deploy.explain_photos import explain_images
        from transfer.evaluation.explain import can_explain

        if can_explain():
            (self.overlay,) = explain_images(self.run, photos.images, classes)
        if self.training:
            self.nearest = self.training.nearest(photos.images[0])


def verdict(answer: Answer, *, plain: bool = False) -> str:
    """Returns what a person reads first, as Markdown or plain."""
    if answer.error:
        start = "not readable: " if plain else "## not readable\n\n"
        return start + (answer.error if plain else _escape(answer.error))
    text = answer.predicted if answer.answered else WHY[answer.unknown_because]
    if plain:
        return text
    note = "\n\nMade a negative first: it learnt from images on the other ground."
    return f"## {_escape(text)}" + (note if answer.inverted else "")


def about_model(classifier: Classifier) -> str:
    """Returns what is known of a model, as Markdown."""
    facts = classifier.facts
    rows = {
        "Classes": ", ".join(facts.class_names[:200]),
        "Data": facts.provenance,
        "Weights": facts.weights,
        "Licences": facts.licence,
        "Accuracy": _accuracy(classifier),
        "Images": f"{facts.geometry.width} x {facts.geometry.height} pixels, {facts.geometry.fit}",
        "Unknown": _thresholds(classifier),
    }
    lines = [f"- **{name}:** {_escape(text)}" for name, text in rows.items() if text]
    return "\n".join([f"## {_escape(facts.name)}", "", *lines])


def model_card(classifier: Classifier) -> str:
    """Returns the card that a run keeps; "" where there is none."""
    if classifier.run is None:
        return ""
    try:
        content = read_regular(classifier.run.run_dir / files.CARD, MOST_CARD_BYTES)
    except (OSError, InputError):
        return ""
    return content.decode("utf-8", "replace")


def _accuracy(classifier: Classifier) -> str:
    from transfer.formatting import format_percent

    facts = classifier.facts
    accuracy, count = facts.accuracy, facts.num_test_images
    if classifier.run is not None:
        from transfer.runs.predictions import load_predictions

        if kept := load_predictions(classifier.run.run_dir, classifier.run.facts):
            accuracy = float((kept.y_prob.argmax(axis=1) == kept.y_true).mean())
            count = len(kept.y_true)
    if accuracy is None or not count:
        return "not measured yet: `transfer evaluate` does"
    from transfer.evaluation.metrics import wilson_interval

    low, high = wilson_interval(round(accuracy * count), count)
    return (
        f"{format_percent(accuracy)} [{100 * low:.2f}, {100 * high:.2f}] of {count:,} test images"
    )


def _thresholds(classifier: Classifier) -> str:
    facts = classifier.facts
    parts = []
    if facts.threshold is not None:
        parts.append(f"a confidence below {facts.threshold:.3f}")
    if facts.distance_threshold is not None:
        parts.append(f"a distance above {facts.distance_threshold:.1f} from the training images")
    return " or ".join(parts)


def _escape(text: str) -> str:
    from transfer.report.document import escape_markdown

    return escape_markdown(text)


def launch(app: "gradio.Blocks", host: str, port: int | None, *, block: bool = True) -> str:
    """Serves the page until Ctrl-C, or in the background; returns its address.

    Raises:
        InputError: the port is taken.
    """
    import gradio

    fonts = ["system-ui", "sans-serif"]
    theme = gradio.themes.Base(font=fonts, font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = app.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            theme=theme,
            css=_CSS,
            max_file_size=MOST_BYTES,
            allowed_paths=[],
            footer_links=["api"],
            ssr_mode=False,
            show_error=True,
            enable_monitoring=False,
        )
    except OSError as error:
        reason = str(error).split(".")[0]
        raise InputError(f"--port {port} of --host {host} cannot be served: {reason}.") from error
    if block:
        app.block_thread()
    return str(address)


def describe_endpoint(address: str, model: str) -> str:
    """Returns the client of the JSON endpoint, in Python."""
    return (
        "from gradio_client import Client, handle_file\n"
        f"client = Client({json.dumps(address)})\n"
        f'print(client.predict(handle_file("photo.jpg"), {json.dumps(model)}, api_name="/predict"))'
    )
