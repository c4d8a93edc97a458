"""The page of `transfer app`: what it answers, what it refuses, and how it looks in a browser."""

import http.server
import json
import shutil
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import transfer
from tests.conftest import make_framed, save_photos
from tests.test_decode import make_bomb

gradio = pytest.importorskip("gradio", reason="the page needs gradio")
gradio_client = pytest.importorskip("gradio_client")

from transfer.deploy import app as page  # noqa: E402
from transfer.deploy import nearest  # noqa: E402
from transfer.deploy.opening import open_classifier  # noqa: E402
from transfer.deploy.predict import Answer  # noqa: E402
from transfer.errors import InputError  # noqa: E402
from transfer.runs import files  # noqa: E402
from transfer.runs.finished import FinishedRun  # noqa: E402

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture(scope="module")
def served(framed_run, tmp_path_factory):
    """The address of the page of a tiny run."""
    from tests.conftest import tiny_row
    from transfer.models.backbones import BACKBONES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", tiny_row())
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("sent")))
        classifier = open_classifier(framed_run)
        app = page.build_app(page.make_page([classifier], tmp_path_factory.mktemp("examples")))
        yield page.launch(app, "127.0.0.1", None, block=False)
        app.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return save_photos(tmp_path_factory.mktemp("photos"), make_framed(32, seed=1)[0])


@pytest.fixture(scope="module")
def client(served):
    return gradio_client.Client(served, verbose=False)


def ask(client, path):
    return client.predict(gradio_client.handle_file(path), "run", api_name="/predict")


def test_32_at_once_are_answered_as_predict_answers(client, framed_run, photos):
    with ThreadPoolExecutor(32) as pool:
        said = list(pool.map(lambda path: ask(client, path), photos))
    for one, answer in zip(said, transfer.predict(framed_run, photos), strict=True):
        assert (one["predicted"], one["answered"]) == (answer.predicted, answer.answered)
        assert one["ranked"][0]["confidence"] == pytest.approx(answer.confidence, abs=1e-6)


@pytest.mark.parametrize("kind", ["text", "svg", "bomb", "truncated"])
def test_what_is_no_photo_is_told(client, photos, tmp_path, kind):
    content = {
        "text": b"no photo",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "bomb": make_bomb(),
        "truncated": open(photos[0], "rb").read()[:60],
    }[kind]
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(Exception, match="This is no photo: "):
        ask(client, str(tmp_path / "x.png"))


def call_predict(served, data):
    """Asks the endpoint without a client; returns what it says, as text."""
    request = urllib.request.Request(
        f"{served}gradio_api/call/predict",
        json.dumps({"data": data}).encode(),
        {"Content-Type": "application/json"},
    )
    event = json.load(urllib.request.urlopen(request))["event_id"]
    return urllib.request.urlopen(f"{served}gradio_api/call/predict/{event}").read().decode()


def test_no_file_of_the_machine_is_read(served, tmp_path):
    secret = save_photos(tmp_path, make_framed(1)[0])[0]
    sent = {"path": secret, "meta": {"_type": "gradio.FileData"}}
    text = call_predict(served, [sent, "run"])
    assert "event: error" in text and "ranked" not in text
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{served}gradio_api/file={secret}")


@pytest.mark.parametrize("is_stream", [False, True])
def test_nothing_is_fetched_from_an_address(served, is_stream):
    asked = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    elsewhere = http.server.HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
    for host in (f"127.0.0.1:{elsewhere.server_port}", "photos.example"):
        sent = {"path": f"http://{host}/x.png", "is_stream": is_stream}
        sent["meta"] = {"_type": "gradio.FileData"}
        told = call_predict(served, [sent, "run"])
        assert "event: error" in told and "its address, which is not fetched" in told
    elsewhere.shutdown()
    elsewhere.server_close()
    assert not asked


def test_the_most_similar_training_images_are_those_of_its_class(framed_run):
    run = FinishedRun(framed_run)
    training = nearest.TrainingImages(run)
    assert len(training) == run.images("train").num_images
    for index in (3, 40):
        image, label = run.images("train").images[index], run.images("train").labels[index]
        found = training.nearest(image)
        assert len(found) == nearest.SHOWN
        assert found[0][1] == f"{run.class_names[label]}, 1.00"
        np.testing.assert_array_equal(np.asarray(found[0][0]), image[..., 0])


def test_more_than_20_mb_are_refused(served):
    head, tail = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n',
        b"\r\n--x--\r\n",
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for size, code in ((1 << 10, 200), (21 << 20, 413)):
        request = urllib.request.Request(
            f"{served}gradio_api/upload", head + bytes(size) + tail, kind
        )
        try:
            answered = urllib.request.urlopen(request).status
        except urllib.error.HTTPError as error:
            answered = error.code
        assert answered == code


def test_a_card_is_shown_as_it_is_and_bounded(tmp_path, monkeypatch):
    classifier = SimpleNamespace(run=SimpleNamespace(run_dir=tmp_path))
    assert page.model_card(classifier) == ""
    (tmp_path / files.CARD).write_text("# A card")
    assert page.model_card(classifier) == "# A card"
    monkeypatch.setattr(page, "MOST_CARD_BYTES", 7)
    assert page.model_card(classifier) == ""


def test_the_endpoint_is_told_as_python(served):
    compile(page.describe_endpoint(served, "run"), "client", "exec")


def test_a_taken_port_is_told(served, framed_run, tmp_path):
    port = int(served.rstrip("/").rsplit(":", 1)[1])
    app = page.build_app(page.make_page([open_classifier(framed_run)], tmp_path))
    with pytest.raises(InputError, match=f"--port {port}"):
        page.launch(app, "127.0.0.1", port, block=False)


def test_two_models_of_one_name_are_told_apart(framed_run, tmp_path):
    classifier = open_classifier(framed_run)
    named = page.make_page([classifier, classifier], tmp_path).classifiers
    assert list(named) == ["run", "run (2)"]
    assert "101 test images" in page.about_model(classifier) or "not measured" in (
        page.about_model(classifier)
    )


def test_another_model_answers_what_lies_on_the_page_anew(framed_run, tmp_path):
    classifier = open_classifier(framed_run)
    app = page.build_app(page.make_page([classifier, classifier], tmp_path)).config
    [model] = [one["id"] for one in app["components"] if one["type"] == "dropdown"]
    shown = {one["id"] for one in app["components"] if one["type"] in ("label", "dataframe")}
    told = [
        set(one["outputs"])
        for one in app["dependencies"]
        if [model, "change"] in [list(target) for target in one["targets"]]
    ]
    assert len(shown) == 2 and shown <= set().union(*told)


def test_a_name_is_no_markdown():
    answer = Answer("x", (("# <b>a</b>", 0.9), ("b", 0.1)), True, inverted=True)
    assert "<b>" not in page.verdict(answer) and "negative" in page.verdict(answer)


def test_in_a_browser(served, framed_run, photos, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser needs playwright")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium (apt-get install chromium)")
    known = next(one for one in transfer.predict(framed_run, photos) if one.answered)
    Image.fromarray(np.full((28, 28), 90, np.uint8)).save(tmp_path / "gray.png")
    (tmp_path / "broken.png").write_bytes(b"no photo")
    options = "--headless --no-sandbox --disable-gpu --disable-background-networking"
    options += " --disable-component-update --disable-sync"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=options.split())
        view = browser.new_page(viewport={"width": 390, "height": 800})
        asked = []
        view.on("request", lambda request: asked.append(request.url))
        view.goto(served)
        upload = "#photo input[type=file]"
        view.wait_for_selector(upload, state="attached", timeout=60_000)
        view.set_input_files(upload, known.path)
        view.wait_for_selector("#verdict h2", timeout=60_000)
        assert view.inner_text("#verdict") == known.predicted
        view.wait_for_selector("#overlay img", timeout=60_000)
        view.wait_for_selector("#nearest img", timeout=60_000)
        assert view.evaluate("document.documentElement.scrollWidth") <= 390
        view.set_input_files(upload, str(tmp_path / "gray.png"))
        view.wait_for_selector("#verdict >> text=unknown", timeout=60_000)
        view.set_input_files(upload, str(tmp_path / "broken.png"))
        view.wait_for_selector("#verdict >> text=not readable", timeout=60_000)
        gone = "text => !document.querySelector('#bars').innerText.includes(text)"
        view.wait_for_function(gone, arg=known.predicted, timeout=60_000)  # the photo before it
        browser.close()
    elsewhere = {url for url in asked if not url.startswith((served, "data:", "blob:"))}
    assert not elsewhere
