"""A job on Ray: the same files as without it, each written once."""

import contextlib
import csv
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from tests.conftest import make_stripes, save_photos
from tests.test_records import examples, tar_bytes
from tools.kill_shards import write_model
from tools.namespaces import two_namespaces
from tools.two_machines import predict_on_two
from transfer.commands.predict import main as predict_command
from transfer.deploy import on_ray
from transfer.deploy.shards import Shard
from transfer.errors import InputError


def predict(*words):
    return CliRunner().invoke(predict_command, list(map(str, words)))


def own_address():
    import ray

    return ray.util.get_node_ip_address()


def read(folder):
    rows = []
    for path in folder.glob("*-of-*.csv"):
        with open(path, newline="") as file:
            rows += list(csv.DictReader(file))
    return sorted(rows, key=lambda row: row["path"])


# Not `importorskip`: where Ray listens is settled when it is imported.
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'transfer[ray]'")


@needs_ray
def test_ray_answers_as_one_process_does(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # the tests wait for them
    monkeypatch.setattr(on_ray, "SHARD_PHOTOS", 10)
    write_model(tmp_path / "model.tflite")
    save_photos(tmp_path / "photos", make_stripes(25, size=8)[0])
    (tmp_path / "photos/y.tar").write_bytes(tar_bytes(examples(30)))
    (tmp_path / "photos/z.tar").write_bytes(b"no tar")
    for name in ("alone", "ray"):
        (tmp_path / name).mkdir()
    job = (tmp_path / "model.tflite", tmp_path / "photos", "--csv", tmp_path / "ray/a.csv")
    with on_ray.connected("local") as num_processors:
        assert own_address() == "127.0.0.1"  # where nobody else reaches it
        cluster = contextlib.nullcontext(num_processors)
        monkeypatch.setattr(on_ray, "connected", lambda address: cluster)
        finished = predict(*job, "--ray", "local")
        assert finished.exit_code == 1, finished.output
        assert "1 of 3 shards could not be answered" in finished.output
        assert "z.tar should be a tar" in finished.output and "photos/s" in finished.stdout
        (tmp_path / "photos/z.tar").write_bytes(tar_bytes(examples(20)))
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").glob("*.csv")}
        assert len(before) == 2
        finished = predict(*job, "--ray", "local")
        assert finished.exit_code == 0 and "Done already: 2 of 3 shards" in finished.stdout
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    predict(*job[:2], "--csv", tmp_path / "alone/a.csv", "--shard", "1/1")
    assert read(tmp_path / "ray") == read(tmp_path / "alone") and len(before) < 3
    assert len(read(tmp_path / "ray")) == 75
    finished = predict(*job, "--ray", "local")  # and no cluster is asked
    assert finished.exit_code == 0 and "Done already: 3 of 3" in finished.stdout


@needs_ray
def test_a_cluster_of_two_machines_answers(tmp_path):
    try:
        with two_namespaces() as both:
            assert predict_on_two(both, tmp_path)
    except OSError as error:
        pytest.skip(f"network namespaces are for root, with iproute2: {error}")


def test_a_cluster_that_wants_a_token_says_so(monkeypatch):
    def init(*words, **options):
        try:
            raise RuntimeError("RPC error: InvalidAuthToken: missing or incorrect")
        except RuntimeError as error:
            raise ConnectionError("Failed to connect to Ray cluster") from error

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with pytest.raises(InputError, match="wants a token; set RAY_AUTH_MODE=token"):
        with on_ray.connected("auto"):
            pass


@needs_ray
@pytest.mark.parametrize(
    ("address", "told"),
    [("127.0.0.1:1", "refused"), ("nowhere", "none of these"), ("http://x:6379", "none of these")],
)
def test_where_no_cluster_is_is_told(address, told):
    with pytest.raises(InputError, match=f"HOST:PORT .*{told}"), on_ray.connected(address):
        pass


@pytest.mark.parametrize("words", [(), ("--csv", "a.csv", "--shard", "1/2")])
def test_ray_needs_a_file_and_takes_all_shards(words):
    finished = predict("model", "x.png", "--ray", "local", *words)
    assert finished.exit_code == 2 and "--ray" in finished.output


def test_every_file_of_records_is_a_shard_and_photos_are_many():
    tars = [f"{number}.tar" for number in range(7)]
    shards = on_ray.divide(tars)
    assert sorted(shards.values()) == [[name] for name in tars]
    assert list(on_ray.divide([f"{n}.png" for n in range(10_001)])) == [Shard(1, 2), Shard(2, 2)]
    assert on_ray.absolute("s3://a/b.tar") == "s3://a/b.tar"
    assert on_ray.absolute("included") == "included"
