"""A job in shards: each share answered once, each file whole, all of one job."""

import csv
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import make_stripes, save_photos
from tests.test_predict import stub
from tests.test_records import examples, pack, tar_bytes
from transfer.commands.predict import main as predict_command
from transfer.deploy import opening
from transfer.deploy.shards import Shard, parse_shard


@pytest.fixture
def folder(tmp_path):
    """Eleven photos, and a file that is none though it is called one."""
    save_photos(tmp_path / "photos", make_stripes(11, size=8)[0])
    (tmp_path / "photos/004b.jpg").write_bytes(b"\xff\xd8 no photo")
    return tmp_path / "photos"


@pytest.fixture
def classifier(monkeypatch):
    """Lets every model be one that answers at once; counts the photos that it saw."""
    model = stub([0.9, 0.1], 1)
    seen = []

    def outputs(images, answer=model.outputs):
        seen.append(len(images))
        return answer(images)

    object.__setattr__(model, "outputs", outputs)
    monkeypatch.setattr(opening, "open_fastest", lambda name: model)
    return seen


def predict(*words):
    return CliRunner().invoke(predict_command, ["model", *map(str, words)])


def read_paths(path):
    with open(path, newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("count", [1, 3, 15])
def test_shards_add_up_to_the_whole(folder, classifier, tmp_path, count):
    out = tmp_path / "answers.csv"
    for index in range(count, 0, -1):
        finished = predict(folder, "--csv", out, "--shard", f"{index}/{count}")
        assert "photos/s" in finished.stdout, finished.output
        # a share with nothing but the file that is none
        assert finished.exit_code == (count == 15 and index == 6)
    parts = [Shard(index, count).path(out) for index in range(1, count + 1)]
    assert sorted(sum(map(read_paths, parts), [])) == sorted(map(str, folder.iterdir()))
    assert max(len(read_paths(part)) for part in parts) == -(-12 // count)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"photos", "answers.job.json", *(part.name for part in parts)}


def test_a_shard_is_the_same_as_in_one_go(folder, classifier, tmp_path):
    predict(folder, "--csv", tmp_path / "one.csv")
    predict(folder, "--csv", tmp_path / "job.csv", "--shard", "1/1")
    assert Shard(1, 1).path(tmp_path / "job.csv").read_bytes() == (
        (tmp_path / "one.csv").read_bytes()
    )


def test_a_finished_shard_is_left_alone_and_said(folder, classifier, tmp_path):
    words = (folder, "--csv", tmp_path / "a.csv", "--shard", "2/3")
    predict(*words)
    path, seen = tmp_path / "a-00002-of-00003.csv", list(classifier)
    before = os.stat(path).st_mtime_ns
    finished = predict(*words)
    assert finished.exit_code == 0 and "Shard 2 of 3 is done already" in finished.stdout
    assert os.stat(path).st_mtime_ns == before and classifier == seen


def test_a_shard_that_fails_is_not_there(folder, classifier, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("transfer.deploy.shards.csv_row", fail)
        finished = predict(folder, "--csv", tmp_path / "a.csv", "--shard", "1/2")
    assert finished.exit_code == 1 and "No space left" in str(finished.exception)
    assert {path.name for path in tmp_path.iterdir()} == {"a.job.json", "photos"}
    assert predict(folder, "--csv", tmp_path / "a.csv", "--shard", "1/2").exit_code == 0


def test_shards_of_another_job_are_told_apart(folder, classifier, tmp_path):
    out = tmp_path / "a.csv"
    assert predict(folder, "--csv", out, "--shard", "1/2").exit_code == 0
    for words, told in (
        (("--shard", "1/3"), "shards 2 in place of shards 3"),
        (("--shard", "2/2", "--tta"), "tta"),
        (("--shard", "2/2", folder.parent / "photos/../photos/001.png"), "photos 12 in place"),
    ):
        finished = predict(folder, "--csv", out, *words)
        assert finished.exit_code == 1 and told in str(finished.exception)
    (folder / "000.png").rename(folder / "other.png")
    finished = predict(folder, "--csv", out, "--shard", "2/2")
    assert finished.exit_code == 1 and "photos sha256" in str(finished.exception)
    job = json.loads((tmp_path / "a.job.json").read_text())
    assert (job["shards"], job["photos"]) == (2, 12)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "-1/3", "1/x", "1/9999999", "١/٣"])
def test_what_is_no_shard_is_told(folder, classifier, tmp_path, text):
    with pytest.raises(ValueError, match="1 <= I <= N"):
        parse_shard(text)
    finished = predict(folder, "--csv", tmp_path / "a.csv", "--shard", text)
    assert finished.exit_code == 2 and "I/N" in finished.output


@pytest.mark.parametrize(
    "words", [(), ("--csv", "a.csv", "--json"), ("--csv", "a.csv", "--into", "x")]
)
def test_a_shard_needs_a_file(folder, words):
    finished = predict(folder, "--shard", "1/2", *words)
    assert finished.exit_code == 2 and "--shard goes with --csv" in finished.output


def test_shares_are_even_whatever_the_order():
    photos = [f"{number}.png" for number in np.random.default_rng(0).permutation(1000)]
    shares = [Shard(index, 7).share(photos) for index in range(1, 8)]
    assert {len(share) for share in shares} == {142, 143}
    assert sorted(sum(shares, [])) == sorted(photos)
    assert shares == [Shard(index, 7).share(photos[::-1]) for index in range(1, 8)]


# --- Photos within files --------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".tar", ".tfrecord"])
def test_shards_take_files_of_records_whole(folder, classifier, tmp_path, suffix):
    records = tmp_path / "records"
    records.mkdir()
    for number, count in enumerate((5, 7, 600)):
        (records / f"{number}{suffix}").write_bytes(pack(suffix, examples(count), tmp_path))
    out = tmp_path / "a.csv"
    for index in (1, 2):
        finished = predict(f"file://{records}", folder, "--csv", out, "--shard", f"{index}/2")
        assert finished.exit_code == 0, finished.output
    parts = [read_paths(Shard(index, 2).path(out)) for index in (1, 2)]
    paths = sum(parts, [])
    assert len(paths) == len(set(paths)) == 5 + 7 + 600 + 12
    assert sum(f"2{suffix}" in path for path in parts[0]) in (0, 600)


def test_a_damaged_file_of_records_leaves_no_shard(folder, classifier, tmp_path):
    (folder / "x.tar").write_bytes(tar_bytes(examples(600))[: 4 * 512 * 550])
    finished = predict(folder, "--csv", tmp_path / "a.csv", "--shard", "1/1")
    assert finished.exit_code == 1 and "x.tar should end" in str(finished.exception)
    assert not Shard(1, 1).path(tmp_path / "a.csv").exists()
    finished = predict(folder, "--into", tmp_path / "sorted")
    assert finished.exit_code == 2 and "files of their own" in finished.output
