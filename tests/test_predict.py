"""Photos to answers: the same pixels as in evaluation, every photo told once, "unknown" known."""

import csv
import io
import json
import os
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import transfer
from tests.conftest import make_framed, printed, save_photos
from transfer.commands.predict import main as predict_command
from transfer.data.geometry import Geometry
from transfer.deploy import answers as answering
from transfer.deploy.classifiers import BATCH, Classifier, Outputs
from transfer.deploy.facts import ModelFacts, ground_of, parse_model_facts
from transfer.deploy.opening import open_classifier
from transfer.deploy.photos import find_photos, invert_images
from transfer.deploy.predict import Answer, PredictOptions, answer_photos
from transfer.errors import InputError
from transfer.evaluation import outliers
from transfer.evaluation.answering import keep_calibration, read_calibration
from transfer.evaluation.predictions import predict_run
from transfer.evaluation.temperature import apply_temperature
from transfer.runs import files
from transfer.runs.finished import FinishedRun

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The run's test images as files."""
    return save_photos(tmp_path_factory.mktemp("photos"), make_framed(101, seed=1)[0])


def invoke(*words):
    return CliRunner().invoke(predict_command, [str(word) for word in words])


# --- The same pixels ------------------------------------------------------------------------


def test_predict_says_what_evaluation_says(framed_run, photos):
    run = FinishedRun(framed_run)
    said = transfer.load(framed_run).predict(photos)
    expected = apply_temperature(predict_run(run).y_prob, read_calibration(run)["temperature"])
    for answer, row in zip(said, expected, strict=True):
        confidence = dict(answer.ranked)
        found = [confidence[name] for name in run.class_names]
        np.testing.assert_allclose(found, row, atol=1e-6)  # float32, in batches of another size
    assert [answer.path for answer in said] == photos
    assert np.mean([answer.answered for answer in said]) > 0.8


def test_flips_are_the_mean_of_both_views(framed_run, photos):
    run = FinishedRun(framed_run)
    flipped = (predict_run(run).y_prob + predict_run(run, "flipped").y_prob) / 2
    expected = apply_temperature(flipped, read_calibration(run)["temperature"]).max(axis=1)
    said = transfer.predict(framed_run, photos, tta=True)
    np.testing.assert_allclose([answer.confidence for answer in said], expected, atol=1e-6)


# --- Unknown --------------------------------------------------------------------------------


def test_what_is_none_of_the_classes_is_unknown(framed_run, tmp_path):
    white, gray = np.full((2, 28, 28, 1), 255, np.uint8), np.full((1, 28, 28, 1), 90, np.uint8)
    said = transfer.predict(framed_run, save_photos(tmp_path, [*white, *gray]), invert="no")
    assert [answer.unknown_because for answer in said] == ["none of these"] * 3
    assert not any(answer.answered for answer in said)


def stub(probabilities, distances, **facts):
    """A classifier that says this of every photo."""

    def outputs(images):
        count = len(images)
        return Outputs(
            np.tile(np.float32(probabilities), (count, 1)), np.tile(np.float32(distances), count)
        )

    names = tuple("abcdefgh"[: len(probabilities)])
    return Classifier(ModelFacts("stub", names, Geometry(8, 8, 1), **facts), outputs)


@pytest.mark.parametrize(
    ("probabilities", "distance", "because"),
    [
        ([0.9, 0.1], 1, ""),
        ([0.6, 0.4], 1, "unsure"),
        ([0.9, 0.1], 3, "none of these"),
        ([0.6, 0.4], 3, "none of these"),
    ],
)
def test_an_answer_needs_confidence_and_nearness(photos, probabilities, distance, because):
    classifier = stub(probabilities, distance, threshold=0.7, distance_threshold=2.0)
    (answer,) = answer_photos([classifier], photos[:1], PredictOptions())
    assert (answer.unknown_because, answer.answered) == (because, not because)
    assert answer.ranked[0] == ("a", pytest.approx(probabilities[0]))


def test_an_ensemble_is_the_mean_and_as_careful_as_its_most_careful(photos):
    sure, other = stub([0.9, 0.1], 1, threshold=0.5), stub([0.5, 0.5], 9, threshold=0.8)
    (answer,) = answer_photos([sure, other], photos[:1], PredictOptions())
    assert answer.ranked == (("a", pytest.approx(0.7)), ("b", pytest.approx(0.3)))
    assert answer.unknown_because == "unsure"
    with pytest.raises(InputError, match="same classes"):
        list(answer_photos([sure, stub([0.2, 0.3, 0.5], 1)], photos[:1], PredictOptions()))


def test_distances_are_those_of_mahalanobis():
    generator = np.random.default_rng(0)
    labels = np.arange(4000) % 3
    spread = np.array([3.0, 1.0, 0.5])
    features = 10 * np.eye(3)[labels] + spread * generator.normal(size=(4000, 3))
    known = outliers.fit_known(features, labels, features[:500], np.zeros(4000))
    points = generator.normal(0, 10, (50, 3))
    expected = np.min([np.linalg.norm((points - 10 * c) / spread, axis=1) for c in np.eye(3)], 0)
    np.testing.assert_allclose(known.distances(points), expected, rtol=0.15)
    assert np.mean(known.distances(features) <= known.threshold) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("num_images", "num_features"), [(6, 40), (60, 8), (9, 1)])
def test_distances_of_few_images_are_finite(num_images, num_features):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(num_images, num_features))
    features[:, 0] = 1  # never varies
    labels = np.arange(num_images) % 3
    known = outliers.fit_known(features, labels, features[:3], np.zeros(num_images))
    assert np.isfinite(known.distances(features + 5)).all()


def test_what_is_kept_comes_back_and_what_is_not_of_this_model_is_none(framed_run, tmp_path):
    transfer.predict(framed_run, str(save_photos(tmp_path, make_framed(1)[0])[0]))
    path, model = framed_run / files.KNOWN_IMAGES, b"m" * 32
    kept = outliers.read_known(path, 2, sha256((framed_run / files.MODEL).read_bytes()).digest())
    assert kept is not None
    again = tmp_path / "again.npz"
    kept.write(again, model)
    np.testing.assert_array_equal(outliers.read_known(again, 2, model).whitening, kept.whitening)
    assert outliers.read_known(again, 3, model) is None  # of other classes
    assert outliers.read_known(again, 2, b"n" * 32) is None  # of another model
    again.write_bytes(again.read_bytes()[:-100])
    assert outliers.read_known(again, 2, model) is None  # damaged


# --- Negatives ------------------------------------------------------------------------------


def test_photos_on_white_are_made_negatives_and_it_is_told(framed_run, photos, tmp_path):
    images = make_framed(6, seed=1)[0]
    paths = save_photos(tmp_path, 255 - images)
    finished = invoke(framed_run, *paths, "--json")
    said = json.loads(finished.stdout)
    expected = transfer.predict(framed_run, photos[:6])
    assert [one["predicted"] for one in said] == [answer.predicted for answer in expected]
    assert all(one["inverted"] for one in said) and not any(a.inverted for a in expected)
    assert "negative" in invoke(framed_run, *paths).stdout
    kept = transfer.predict(framed_run, paths, invert="no")
    assert not any(answer.inverted for answer in kept)
    assert all(answer.inverted for answer in transfer.predict(framed_run, photos[:2], invert="yes"))


def test_a_ground_is_that_of_nearly_all_images():
    assert [ground_of(borders) for borders in ((0, 20), (230, 255), (0, 255), (90, 160))] == [
        "dark",
        "light",
        "",
        "",
    ]
    white = np.full((1, 4, 4, 3), 255, np.uint8)
    assert invert_images(white.copy(), "dark", "auto").tolist() == [True]
    assert invert_images(white.copy(), "light", "auto").tolist() == [False]
    assert invert_images(white.copy(), "", "auto").tolist() == [False]


# --- Which photos ---------------------------------------------------------------------------


def test_every_photo_is_told_once_in_order(framed_run, photos, tmp_path):
    folder = tmp_path / "mine"
    save_photos(folder / "b", make_framed(2)[0])
    (folder / "a.jpg").write_bytes(b"\xff\xd8 no photo")
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.png").write_text("x")
    csv_file = tmp_path / "answers.csv"
    finished = invoke(
        framed_run,
        folder,
        photos[0],
        photos[0],
        tmp_path / "gone.png",
        "--csv",
        csv_file,
        "--top",
        2,
    )
    assert finished.exit_code == 0, finished.output
    rows = list(csv.DictReader(io.StringIO(csv_file.read_text())))
    assert [row["path"] for row in rows] == [
        str(folder / "a.jpg"),
        str(folder / "b/000.png"),
        str(folder / "b/001.png"),
        photos[0],
        str(tmp_path / "gone.png"),
    ]
    assert [bool(row["error"]) for row in rows] == [True, False, False, False, True]
    assert list(rows[0]) == list(answering.COLUMNS)
    assert {row["answered"] for row in rows} <= {"yes", "no"}
    text = finished.stdout
    assert "1 file with no image" in text and "answered once: 1 photo" in text
    assert "5 photos" in text and "2 not readable" in text
    unread = [line for line in text.splitlines() if line.startswith("Not readable: ")]
    assert [line.split(": ")[1] for line in unread] == [rows[0]["path"], rows[4]["path"]]


def test_photos_come_from_stdin(framed_run, photos):
    words = [str(framed_run), "-", "--json"]
    finished = CliRunner().invoke(predict_command, words, input="\n".join(photos[:3]) + "\n")
    assert [one["path"] for one in json.loads(finished.stdout)] == photos[:3]


def test_more_photos_than_a_batch(photos, monkeypatch):
    monkeypatch.setattr("transfer.deploy.classifiers.BATCH", 4)
    seen = []
    said = list(answer_photos([stub([1, 0], 0)], photos[:10], PredictOptions(), seen.append))
    assert [answer.path for answer in said] == photos[:10] and seen == [4, 8, 10]
    assert BATCH > 4


@pytest.mark.parametrize("words", [["nosuch"], ["{empty}"]])
def test_only_what_cannot_be_read_ends_with_one(framed_run, tmp_path, words):
    finished = invoke(framed_run, *(word.format(empty=tmp_path) for word in words))
    assert finished.exit_code == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{run}", "x.png", "--link"], "--into"),
        (["{run}", "x.png", "--top", "0"], "--top"),
        (["{run}", "x.png", "--invert", "perhaps"], "auto"),
        (["{run}"], "PHOTO"),
    ],
)
def test_wrong_usage_is_told(framed_run, words, told):
    finished = invoke(*(word.format(run=framed_run) for word in words))
    assert finished.exit_code == 2 and told in finished.output


def test_what_is_no_model_is_told(tmp_path):
    for model in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match="should"):
            open_classifier(model)


def test_a_calibration_that_was_edited_or_is_of_another_model_is_fitted_again(framed_run, tmp_path):
    import shutil

    run_dir = tmp_path / "run"
    shutil.copytree(framed_run, run_dir)
    path, run = run_dir / files.CALIBRATION, FinishedRun(run_dir)
    path.unlink(missing_ok=True)
    assert read_calibration(run) is None
    fitted = keep_calibration(run)
    written = path.read_bytes()
    assert read_calibration(run) == fitted and "sha256" not in fitted
    edited = json.loads(written) | {"threshold": 0.123}
    for content in (
        json.dumps(edited).encode(),
        b"{}",
        b"[[[",
        b"\xff",
        written.replace(b"1", b"2"),
    ):
        path.write_bytes(content)
        assert "calibration.json is damaged or not of this model" in printed(
            lambda: read_calibration(run), width=300
        )
        assert read_calibration(run) is None
    path.write_bytes(written)
    with (run_dir / files.MODEL).open("ab") as file:
        file.write(b"x")
    assert read_calibration(run) is None


def test_photos_that_lose_their_aspect_are_counted(framed_run, tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels[:, :41]).save(tmp_path / "nearly.png")
    tall = Image.fromarray(pixels[:, :40].repeat(2, axis=0))
    tall.save(tmp_path / "tall.png")
    finished = invoke(framed_run, tmp_path)
    assert finished.exit_code == 0, finished.output
    assert "2 squashed to the shape of the training images" in finished.stdout
    said = transfer.predict(framed_run, tmp_path)
    assert [os.path.basename(one.path) for one in said if one.squashed] == ["tall.png", "wide.png"]


def test_a_run_without_its_data_answers_everything_and_says_so(framed_run, photos, tmp_path):
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(framed_run, moved)
    for name in (files.CALIBRATION, files.KNOWN_IMAGES, files.VALIDATION_PREDICTIONS):
        (moved / name).unlink(missing_ok=True)
    config = json.loads((moved / files.CONFIG).read_text())
    config["data"]["location"] = str(tmp_path / "gone.npz")
    (moved / files.CONFIG).write_text(json.dumps(config))
    finished = invoke(moved, photos[0], photos[1])
    assert finished.exit_code == 0 and "every photo gets an answer" in finished.stdout
    assert "2 answered" in finished.stdout


# --- Sorted and explained -------------------------------------------------------------------


def test_photos_are_sorted_and_never_overwritten(framed_run, photos, tmp_path):
    same = save_photos(
        tmp_path / "other", make_framed(1, seed=1)[0]
    )  # the name and class of the first
    before = [open(path, "rb").read() for path in photos[:3]]
    into = tmp_path / "sorted"
    finished = invoke(framed_run, *photos[:3], *same, "--into", into, "--invert", "no")
    assert finished.exit_code == 0, finished.output
    copies = sorted(path for path in into.rglob("*.png"))
    assert len(copies) == 4 and {path.parent.name for path in copies} <= {
        "level",
        "upright",
        "unknown",
    }
    assert "000-2.png" in {path.name for path in copies}
    assert [open(path, "rb").read() for path in photos[:3]] == before
    invoke(framed_run, photos[0], "--into", tmp_path / "links", "--link")
    (link,) = (path for path in (tmp_path / "links").rglob("*") if path.is_symlink())
    assert os.path.samefile(link, photos[0])


def test_folders_of_classes_stay_in_their_folder():
    names = answering.folder_names(("../up", "a/b", "a\\b", "Unknown", "..", "", "A_B"))
    assert len({name.lower() for name in names.values()}) == 7
    for name in names.values():
        assert name and "/" not in name and "\\" not in name
        assert not name.startswith(".") and name.lower() != "unknown"


@pytest.mark.parametrize("letter", ["\U0001f600", "\u00e4", "x"])
def test_names_as_long_as_a_disk_takes_are_kept_apart(tmp_path, letter):
    stem = answering.fit_name(letter * 255, ".png").removesuffix(".png")
    answers = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        Image.new("L", (8, 8)).save(folder / f"{stem}.png")
        named = (letter * 300, 0.9), ("other", 0.1)
        answers.append(Answer(str(folder / f"{stem}.png"), named, answered=True))
    into = tmp_path / "into"
    assert answering.sort_photos(answers, (letter * 300, letter * 301), into, link=False) == 2
    assert len(list(into.glob("*/*.png"))) == 2 and len(list(into.iterdir())) == 1


def test_pictures_say_where(framed_run, photos, tmp_path):
    finished = invoke(framed_run, *photos[:2], "--explain", tmp_path / "why")
    assert finished.exit_code == 0, finished.output
    pictures = sorted((tmp_path / "why").iterdir())
    assert [path.name for path in pictures] == ["000001-000.png", "000002-001.png"]
    assert min(Image.open(pictures[0]).size) >= 300


# --- What a file may say of a model ---------------------------------------------------------

GOOD = ModelFacts(
    "m",
    ("a", "b"),
    Geometry(28, 28, 1),
    "dark",
    1.5,
    0.9,
    7.0,
    "d",
    "p",
    "w",
    "l",
    0.9,
    100,
    {"keras": "3"},
)


def test_facts_come_back_as_they_were():
    assert parse_model_facts(json.dumps(GOOD.to_json()), "x") == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["a"]},
        {"class_names": "ab"},
        {"geometry": {"height": 0, "width": 1, "channels": 1, "fit": "squash"}},
        {"geometry": {"height": 1 << 30, "width": 1, "channels": 1, "fit": "squash"}},
        {"geometry": {"height": 65536, "width": 65536, "channels": 1, "fit": "squash"}},
        {"geometry": {"height": 8, "width": 8, "channels": 2, "fit": "squash"}},
        {"ground": "blue"},
        {"temperature": "hot"},
        {"temperature": float("nan")},
        {"threshold": 2},
        {"distance_threshold": -1},
        {"versions": []},
        {"num_test_images": 1.5},
    ],
    ids=str,
)
def test_facts_of_a_stranger_are_checked(change):
    with pytest.raises(InputError):
        parse_model_facts(json.dumps(GOOD.to_json() | change), "x.tflite")


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, " " * (9 << 20)], ids=len)
def test_what_is_no_json_of_facts_is_told(text):
    with pytest.raises(InputError):
        parse_model_facts(text, "x.tflite")


def test_no_cell_is_a_formula():
    said = [Answer("=1+1.png", (("@sum", 0.9), ("-b", 0.1)), True), Answer("+x", error="-")]
    for row in csv.reader(answering.answers_csv(said).splitlines()):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)


def test_a_table_keeps_to_the_terminal():
    from tests.conftest import printed

    said = [Answer("a\nb.png", (("cat", 0.9), ("dog", 0.1)), True), Answer("x", error="empty")]
    text = printed(answering.answers_table(said, 2).show)
    assert "\\n" in text and "empty" not in text
    assert answering.unreadable_lines(said) == ["Not readable: x: empty"]
    assert max(map(len, text.splitlines())) <= 80


def test_help_and_finding_photos_load_no_library():
    code = (
        "import sys; import transfer.commands.predict, transfer.deploy.predict; "
        "assert not {'tensorflow', 'keras', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_found_photos_are_listed_once(tmp_path):
    save_photos(tmp_path, make_framed(2)[0])
    found = find_photos([str(tmp_path), str(tmp_path / "000.png")])
    assert len(found.paths) == 2 and found.twice == 1
