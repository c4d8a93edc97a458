"""Similar images of a catalogue: exact, in order, of this model's index alone."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import make_framed, save_photos
from transfer.commands.search import main as search_command
from transfer.deploy import similar
from transfer.errors import InputError
from transfer.runs import files
from transfer.runs.finished import FinishedRun

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """40 images, one that does not decode, and one that is there twice."""
    folder = tmp_path_factory.mktemp("catalogue")
    images = make_framed(40, seed=2)[0]
    save_photos(folder, np.concatenate([images, images[:1]]))
    (folder / "broken.png").write_bytes(b"no photo")
    return folder


def invoke(*words):
    return CliRunner().invoke(search_command, [str(word) for word in words])


def test_a_catalogue_is_searched(framed_run, catalogue, tmp_path):
    photo = catalogue / "007.png"
    written = tmp_path / "x.csv", tmp_path / "x.html"
    made = invoke(framed_run, "--index", catalogue)
    assert made.exit_code == 0 and "41 images, 1 not readable" in made.stdout, made.output
    words = ("--top", 5, "--csv", written[0], "--html", written[1])
    finished = invoke(framed_run, photo, *words)
    assert finished.exit_code == 0, finished.output
    rows = list(csv.DictReader(written[0].read_text().splitlines()))
    assert [row["place"] for row in rows] == list("12345")
    assert rows[0]["path"] == str(photo)
    assert float(rows[0]["cosine"]) == pytest.approx(1, abs=1e-3)
    cosines = [float(row["cosine"]) for row in rows]
    assert cosines == sorted(cosines, reverse=True)
    page = written[1].read_text()
    assert page.count("data:image/png") == 6 and "<script" not in page
    twice = json.loads(invoke(framed_run, catalogue / "000.png", "--json", "--top", 2).stdout)
    assert {one["path"][-7:] for one in twice} == {"000.png", "040.png"}


@pytest.mark.parametrize("images_alike", [False, True], ids=["far apart", "in groups"])
@pytest.mark.parametrize("large", [10, 10_000], ids=["by an outline", "all of them"])
def test_the_nearest_are_those_of_all_cosines(large, images_alike, monkeypatch):
    monkeypatch.setattr(similar, "_LARGE", large)
    monkeypatch.setattr(similar, "_SAMPLED", 200)
    monkeypatch.setattr(similar, "_DIRECTIONS", 8)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(500, 16)).astype(np.float32)
    if images_alike:  # few directions hold most of them, and some are there twice
        features = features[:10].repeat(50, axis=0) + 0.05 * features
        features[250:260] = features[0]
    mean = features.mean(axis=0)
    unit = (features - mean) / np.linalg.norm(features - mean, axis=1, keepdims=True)
    index = similar.make_index(tuple(map(str, range(500))), features)
    for photo in (*generator.normal(size=(3, 16)).astype(np.float32), features[0], features[77]):
        centred = (photo - mean) / np.linalg.norm(photo - mean)
        found = index.nearest(photo, 20)
        np.testing.assert_allclose(
            [cosine for _, cosine in found], np.sort(unit @ centred)[:-21:-1], atol=1e-5
        )
        np.testing.assert_allclose(
            unit[[row for row, _ in found]] @ centred, [cosine for _, cosine in found], atol=1e-5
        )
        assert (
            len(index.nearest(photo, 1000))
            == len({row for row, _ in index.nearest(photo, 1000)})
            == 500
        )


def test_an_outline_leaves_few_images_to_look_at(monkeypatch):
    monkeypatch.setattr(similar, "_LARGE", 1_000)
    generator = np.random.default_rng(0)
    groups = generator.normal(size=(200, 300)).astype(np.float32)
    features = groups.repeat(10, axis=0) + 0.02 * generator.normal(size=(2000, 300)).astype("f")
    index = similar.make_index(("",) * 2000, features)
    looked_at = index.candidates(index.features[5], 10)
    assert looked_at is not None and set(range(10)) <= set(looked_at) and len(looked_at) < 50


@pytest.mark.parametrize("damage", ["none", "cut", "other model"])
def test_an_index_that_is_not_of_this_model_is_told(framed_run, tmp_path, monkeypatch, damage):
    searcher = similar.Searcher(FinishedRun(framed_run))
    searcher.path = tmp_path / files.SEARCH_INDEX
    if damage != "none":
        searcher.build(save_photos(tmp_path / "a", make_framed(3)[0]))
        assert len(searcher.load().paths) == 3
    if damage == "cut":
        searcher.path.write_bytes(searcher.path.read_bytes()[:-50])
    elif damage == "other model":
        monkeypatch.setattr(searcher, "_fingerprint", lambda: b"other")
    with pytest.raises(InputError):
        searcher.load()


@pytest.mark.parametrize(
    ("words", "code"),
    [(["{run}"], 2), (["gone", "x.png"], 1), (["{run}", "--index", "{empty}"], 1)],
)
def test_what_cannot_be_searched_is_told(framed_run, tmp_path, words, code):
    finished = invoke(*(word.format(run=framed_run, empty=tmp_path) for word in words))
    assert finished.exit_code == code
