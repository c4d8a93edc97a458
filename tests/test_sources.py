"""Where images come from: each format, each place, each way to be wrong."""

import gzip
import hashlib
import lzma
import os
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import printed, write_copies
from tests.test_records import examples as record_examples
from tests.test_records import tar_bytes
from tools import make_sample
from transfer.config import Config
from transfer.data.fashion_mnist import CLASS_NAMES, FASHION_MNIST_SHA256, SAMPLE_SHA256
from transfer.data.fingerprints import fingerprint, is_outdated
from transfer.data.splits import Split
from transfer.datasets import places, sources
from transfer.datasets.formats import csv_pixels, npz
from transfer.datasets.sources import SOURCES, load_splits
from transfer.errors import InputError
from transfer.storage.downloads import DownloadError

REAL_FOLDER = places.SYSTEM_FOLDER
HAS_REAL_DATA = (REAL_FOLDER / "t10k-labels-idx1-ubyte.gz").exists()
missing_real_data = pytest.mark.skipif(
    not HAS_REAL_DATA, reason=f"no {REAL_FOLDER}: apt-get install dataset-fashion-mnist"
)
FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """No place of this machine is seen and nothing is fetched. Returns Keras's cache."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    monkeypatch.delenv("TRANSFER_OFFLINE", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(folder / "keras"))
    monkeypatch.setattr(places, "SYSTEM_FOLDER", folder / "system")
    monkeypatch.setattr(places, "download", no_answer)
    return folder / "keras" / "datasets" / "fashion-mnist"


def no_answer(url, target, **_):
    raise DownloadError(f"no answer from {url} within 10 s.")


def draw(num_images, num_classes, shape=(4, 4), seed=0):
    random = np.random.RandomState(seed)
    labels = np.arange(num_images) % num_classes
    return random.randint(0, 256, (num_images, *shape), np.uint8), labels.astype(np.uint8)


def to_idx(array, magic=None):
    magic = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">{array.ndim + 1}I", magic, *array.shape) + array.tobytes()


def write_idx(folder, train, test, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for stem, array in zip(FASHION_MNIST_SHA256, (*train, *test), strict=True):
        contents[stem] = to_idx(array)
        packed = gzip.compress(contents[stem], mtime=0) if suffix == ".gz" else contents[stem]
        (folder / f"{stem}{suffix}").write_bytes(packed)
    return contents


def write_csv(path, images, labels, end="\n"):
    pixels = images.reshape(len(images), -1)
    header = ",".join(["label", *(f"pixel{i + 1}" for i in range(pixels.shape[1]))])
    rows = [",".join(map(str, [label, *row])) for label, row in zip(labels, pixels, strict=True)]
    path.parent.mkdir(exist_ok=True)
    path.write_text(end.join([header, *rows, ""]), newline="")
    return path


def write_npz(path, train, test, **more):
    np.savez_compressed(
        path, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1], **more
    )
    return path


def write_images(folder, classes, count=6, suffix=".png"):
    random = np.random.RandomState(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.randint(0, 256, (5, 5, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}{suffix}")
    return folder


@pytest.fixture
def tiny():
    return draw(60, 10), draw(20, 10, seed=1)


@pytest.fixture
def published(tiny, monkeypatch):
    """Makes tiny files the published ones. Returns a function that writes them."""
    with tempfile.TemporaryDirectory() as folder:
        contents = write_idx(Path(folder), *tiny)
    digests = {stem: hashlib.sha256(c).hexdigest() for stem, c in contents.items()}
    for stem, digest in digests.items():
        monkeypatch.setitem(FASHION_MNIST_SHA256, stem, digest)
    return lambda folder, suffix=".gz": write_idx(folder, *tiny, suffix)


def refused(data, **arguments):
    with pytest.raises(InputError) as caught:
        load_splits(str(data), **arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.isprintable() and "Received" in message
    return message


def rows_of(split):
    return {image.tobytes() for image in split.images}


def check_invariants(loaded):
    splits = [split for split in (loaded.train, loaded.test) if split is not None]
    for split in splits:
        assert split.images.dtype == np.uint8 and split.images.ndim == 4
        assert split.labels.dtype == np.int64 and len(split.images) == split.num_images
        assert 0 <= split.labels.min() and split.labels.max() < len(loaded.class_names)


# --- Finding Fashion-MNIST ------------------------------------------------------------------


def test_auto_takes_the_first_place(published, home, tmp_path, monkeypatch):
    taken = [load_splits("auto").location]
    published(places.SYSTEM_FOLDER)
    taken.append(load_splits("auto").location)
    published(home)
    taken.append(load_splits("auto").location)
    published(tmp_path / "wish", suffix="")
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "wish"))
    taken.append(load_splits("auto").location)
    expected = ["sample", places.SYSTEM_FOLDER, home, tmp_path / "wish"]
    assert taken == [str(place) for place in expected]


def test_published_files_are_called_so(published, tmp_path, tiny):
    published(tmp_path / "mine")
    splits = load_splits(str(tmp_path / "mine"))
    assert splits.name == "fashion-mnist"
    assert splits.class_names == CLASS_NAMES
    assert "50 training, 10 validation and 20 test" in splits.provenance
    assert "checksums verified" in splits.provenance
    assert (splits.test.images[..., 0] == tiny[1][0]).all()
    assert (splits.test.labels == tiny[1][1]).all()


def test_home_folder_is_used_without_keras_home(monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert places._keras_cache() == Path("/home/somebody/.keras/datasets/fashion-mnist")


@pytest.mark.parametrize("data", ["auto", "fashion-mnist"])
@pytest.mark.parametrize("there", [None, "empty", "other"])
def test_an_explicit_folder_is_that_or_an_error(tmp_path, monkeypatch, tiny, data, there):
    folder = tmp_path / "wish"
    if there == "empty":
        folder.mkdir()
    if there == "other":
        write_idx(folder, *tiny)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(folder))
    message = refused(data)
    assert "FASHION_MNIST_DIR" in message and str(folder) in message


def test_explicit_fashion_mnist_names_every_place_and_the_mend(home):
    message = refused("fashion-mnist")
    for part in (
        "$FASHION_MNIST_DIR: not set",
        str(home),
        str(places.SYSTEM_FOLDER),
        "no answer from https://storage.googleapis.com",
        "apt-get install dataset-fashion-mnist",
        "FASHION_MNIST_DIR=FOLDER",
        "on another machine",
    ):
        assert part in message


def test_damaged_cache_is_set_aside_and_fetched_again(published, home, tmp_path, monkeypatch):
    published(tmp_path / "web")
    published(home)
    truncated = home / "train-images-idx3-ubyte.gz"
    truncated.write_bytes(truncated.read_bytes()[:-50])
    other = home / "t10k-labels-idx1-ubyte.gz"
    other.write_bytes(gzip.compress(to_idx(np.zeros(20, np.uint8))))
    fetched = []

    def fetch(url, target):
        fetched.append(url)
        target.write_bytes((tmp_path / "web" / url.rsplit("/", 1)[1]).read_bytes())

    monkeypatch.setattr(places, "download", fetch)
    splits = load_splits("auto")
    assert splits.name == "fashion-mnist" and splits.location == str(home)
    assert fetched == [places.DOWNLOAD_URL + path.name for path in (truncated, other)]
    damaged = {f"{truncated.name}.damaged", f"{other.name}.damaged"}
    assert damaged <= set(os.listdir(home))
    assert "passed over" in splits.provenance and "checksums verified" in splits.provenance


def test_damaged_download_is_not_used(published, home, monkeypatch):
    def fetch(url, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"<html>Log in to the hotel's network</html>")

    monkeypatch.setattr(places, "download", fetch)
    splits = load_splits("auto")
    assert splits.name == "fashion-mnist-sample" and "is damaged" in splits.provenance
    assert all(name.endswith(".damaged") for name in os.listdir(home))


def test_damaged_system_folder_is_passed_over_and_told(published):
    published(places.SYSTEM_FOLDER)
    path = places.SYSTEM_FOLDER / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:40])
    splits = load_splits("auto")
    assert splits.name == "fashion-mnist-sample"
    assert f"passed over {path}" in splits.provenance
    assert path.exists()


def test_only_the_first_file_is_waited_for(monkeypatch):
    asked = []

    def fetch(url, target):
        asked.append(url)
        no_answer(url, target)

    monkeypatch.setattr(places, "download", fetch)
    splits = load_splits("auto")
    assert len(asked) == 1
    assert splits.name == "fashion-mnist-sample" and "no answer from" in splits.provenance
    assert splits.provenance.isprintable()


@pytest.mark.parametrize("said", ["argument", "variable"])
def test_offline_never_fetches(monkeypatch, said):
    monkeypatch.setattr(places, "download", lambda *_: pytest.fail("touched the network"))
    if said == "variable":
        monkeypatch.setenv("TRANSFER_OFFLINE", "1")
    splits = load_splits("auto", offline=said == "argument")
    assert splits.name == "fashion-mnist-sample" and "offline" in splits.provenance


# --- The sample and the real files ----------------------------------------------------------


def test_sample_is_verified_stratified_and_small():
    splits = load_splits("sample")
    assert splits.name == "fashion-mnist-sample" and splits.class_names == CLASS_NAMES
    assert "not the full Fashion-MNIST" in splits.provenance
    assert np.bincount(splits.train.labels).tolist() == [540] * 10
    assert np.bincount(splits.validation.labels).tolist() == [60] * 10
    assert np.bincount(splits.test.labels).tolist() == [100] * 10
    assert splits.train.images.shape == (5400, 28, 28, 1)
    size = sum(p.stat().st_size for p in places.SAMPLE_FOLDER.iterdir() if p.is_file())
    assert size <= 3_000_000
    notice = (places.SAMPLE_FOLDER / "LICENSE").read_text("utf-8")
    assert "Copyright © 2017 Zalando SE, https://tech.zalando.com" in notice


def test_damaged_sample_is_refused(tmp_path, monkeypatch):
    for path in places.SAMPLE_FOLDER.glob("*.xz"):
        content = bytearray(lzma.decompress(path.read_bytes()))
        content[-1] = (content[-1] + 1) % 10
        (tmp_path / path.stem).write_bytes(content)
    monkeypatch.setattr(places, "SAMPLE_FOLDER", tmp_path)
    assert "install the package again" in refused("sample")


@pytest.mark.real_data
@missing_real_data
def test_sample_can_be_drawn_again():
    # Content, not compressed bytes: those depend on the version of liblzma.
    contents = make_sample.draw_sample(REAL_FOLDER)
    assert contents.keys() == SAMPLE_SHA256.keys()
    for stem, content in contents.items():
        assert content == lzma.decompress((places.SAMPLE_FOLDER / f"{stem}.xz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == SAMPLE_SHA256[stem]


@pytest.mark.real_data
@missing_real_data
def test_real_files(monkeypatch):
    monkeypatch.setattr(places, "SYSTEM_FOLDER", REAL_FOLDER)
    splits = load_splits("auto")
    assert splits.name == "fashion-mnist" and "checksums verified" in splits.provenance
    assert splits.train.images.shape == (54000, 28, 28, 1)
    assert np.bincount(splits.validation.labels).tolist() == [600] * 10
    assert np.bincount(splits.test.labels).tolist() == [1000] * 10
    assert splits.test.labels[:5].tolist() == [9, 2, 1, 1, 6]  # as in every tutorial
    assert splits.train.images.mean() == pytest.approx(72.94, abs=0.3)


# --- IDX ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_other_idx_files_are_a_data_set_of_their_own(tmp_path, tiny, suffix):
    write_idx(tmp_path / "mnist", *tiny, suffix)
    splits = load_splits(str(tmp_path / "mnist"))
    assert splits.name == "mnist" and splits.class_names == tuple("0123456789")
    assert "not the published Fashion-MNIST" in splits.provenance
    assert rows_of(splits.train) | rows_of(splits.validation) == {x.tobytes() for x in tiny[0][0]}


def test_a_folder_cannot_pass_for_the_published_data_by_its_name(tmp_path, tiny):
    write_idx(tmp_path / "fashion-mnist", *tiny)
    assert load_splits(str(tmp_path / "fashion-mnist")).name == "fashion-mnist-unverified"


@pytest.mark.parametrize(
    ("stem", "content", "told"),
    [
        ("train-images-idx3-ubyte", to_idx(draw(60, 10)[0], 0x0801), "magic number 0x00000803"),
        ("train-images-idx3-ubyte", to_idx(draw(60, 10)[0])[:-1], "960 bytes after"),
        ("train-images-idx3-ubyte", to_idx(draw(60, 10)[0]) + b"x", "Received: 961"),
        ("train-images-idx3-ubyte", b"\0\0\10", "16 bytes of header"),
        ("train-images-idx3-ubyte", b"", "16 bytes of header"),
        ("train-labels-idx1-ubyte", to_idx(draw(59, 10)[1]), "60 images, 59 labels"),
        ("train-images-idx3-ubyte", to_idx(np.zeros((0, 4, 4), np.uint8)), "(0, 4, 4, 1)"),
        ("t10k-images-idx3-ubyte", to_idx(draw(20, 10, (5, 4))[0]), "one shape"),
        ("t10k-labels-idx1-ubyte", to_idx(np.full(20, 10, np.uint8)), "0 to 9. Received: 10"),
        ("train-labels-idx1-ubyte", to_idx(draw(60, 10)[1] + np.uint8(1)), "Received: 0 for test"),
        ("train-labels-idx1-ubyte", to_idx(np.zeros(60, np.uint8)), "labels should be 0 to 0"),
    ],
)
def test_wrong_idx_is_told(tmp_path, tiny, stem, content, told):
    write_idx(tmp_path / "d", *tiny, "")
    (tmp_path / "d" / stem).write_bytes(content)
    message = refused(tmp_path / "d")
    assert told in message and str(tmp_path) in message


@pytest.mark.parametrize("stem", list(FASHION_MNIST_SHA256))
def test_missing_idx_file_is_named(tmp_path, tiny, stem):
    write_idx(tmp_path / "d", *tiny)
    (tmp_path / "d" / f"{stem}.gz").unlink()
    assert stem in refused(tmp_path / "d")


def damage(data, content):
    # Draws a truncation or up to 20 changed bytes.
    if data.draw(st.booleans()):
        return content[: data.draw(st.integers(0, len(content) - 1))]
    changed = bytearray(content)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=20)):
        changed[position] = data.draw(st.integers(0, 255))
    return bytes(changed)


def load_or_refuse(path):
    # InputError is an answer; any other exception fails the test.
    try:
        return sources._load_path(str(path))
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        return None


@FUZZ
@given(data=st.data())
def test_damaged_gz_is_told_or_harmless(tmp_path, data):
    train, test = draw(20, 2), draw(4, 2, seed=1)
    write_idx(tmp_path / "d", train, test)
    path = tmp_path / "d" / f"{data.draw(st.sampled_from(list(FASHION_MNIST_SHA256)))}.gz"
    path.write_bytes(damage(data, path.read_bytes()))
    loaded = load_or_refuse(tmp_path / "d")
    if loaded is not None:  # bytes of gzip's header that mean nothing
        assert (loaded.train.images[..., 0] == train[0]).all()
        assert (loaded.train.labels == train[1]).all()
        assert (loaded.test.images[..., 0] == test[0]).all()
        assert (loaded.test.labels == test[1]).all()


@FUZZ
@given(data=st.data())
def test_damaged_idx_is_told_or_consistent(tmp_path, data):
    # Plain IDX has no checksum: a changed pixel cannot be told, a changed header can.
    contents = write_idx(tmp_path / "d", draw(20, 2), draw(4, 2), "")
    stem = data.draw(st.sampled_from(list(contents)))
    changed = damage(data, contents[stem])
    (tmp_path / "d" / stem).write_bytes(changed)
    loaded = load_or_refuse(tmp_path / "d")
    if loaded is not None:
        assert len(changed) == len(contents[stem])
        check_invariants(loaded)


# --- CSV ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("block_bytes", [100, 1 << 22])
def test_csv_gives_the_same_as_arrays(tmp_path, monkeypatch, end, block_bytes):
    monkeypatch.setattr(csv_pixels, "_BLOCK_BYTES", block_bytes)
    train, test = draw(40, 10, (28, 28)), draw(20, 10, (28, 28), seed=1)
    write_csv(tmp_path / "fashion-mnist_train.csv", *train, end)
    write_csv(tmp_path / "fashion-mnist_test.csv", *test, end)
    for data in (tmp_path, tmp_path / "fashion-mnist_train.csv"):
        loaded = sources._load_path(str(data))
        assert (loaded.train.images[..., 0] == train[0]).all()
        assert (loaded.test.images[..., 0] == test[0]).all()
        assert (loaded.train.labels == train[1]).all()
        assert loaded.class_names == CLASS_NAMES
        splits = load_splits(str(data))
        assert splits.name == data.name and "not compared" in splits.provenance


def test_csv_slow_way_reads_the_same(tmp_path):
    images, labels = draw(12, 3)
    path = write_csv(tmp_path / "pets.csv", images, labels)
    odd = path.read_text().replace(",", " , ").replace("\n1 ,", "\n1.0 ,").rstrip("\n") + "\n\n"
    path.write_text("\ufeff" + odd, encoding="utf-8")
    loaded = sources._load_path(str(path))
    assert (loaded.train.images[..., 0] == images).all()
    assert (loaded.train.labels == labels).all()
    assert loaded.test is None and loaded.class_names == ("0", "1", "2")


FIELDS = ["12.0", " 12", "12\t", "12.", "012", "000000012", "12.000", " 12.0 ", "\f12"]
WRONG = ["+12", "12e0", "1e1", "0x1", ".0", "12.0.0", "0000000012", "00000000000000012", "1 2", " "]
WRONG += ["'12'", '"12"', "12#", "#", "1\r2", "\xa012", "256", "300", "inf", "-0", "12.00000000001"]


@pytest.mark.parametrize("field", FIELDS)
def test_a_whole_number_may_be_written_so(tmp_path, field):
    images, labels = draw(10, 2)
    images[4, 0, 2] = 12
    path = write_csv(tmp_path / "d.csv", images, labels)
    lines = path.read_text().split("\n")
    fields = lines[5].split(",")
    lines[5] = ",".join([*fields[:3], field, *fields[4:]])
    path.write_bytes("\n".join(lines).encode())
    assert (sources._load_path(str(path)).train.images[..., 0] == images).all()


@pytest.mark.parametrize("field", WRONG)
def test_what_parsers_of_numbers_take_besides_is_told(tmp_path, field):
    path = write_csv(tmp_path / "d.csv", *draw(10, 2))
    lines = path.read_text().split("\n")
    fields = lines[5].split(",")
    lines[5] = ",".join([*fields[:3], field, *fields[4:]])
    path.write_bytes("\n".join(lines).encode())
    assert f"{path}, row 6, column pixel3: there should be a whole number" in refused(path)


@pytest.mark.parametrize("line", ["", " ", "\t", "\r"])
def test_blank_lines_between_rows_are_passed_over(tmp_path, monkeypatch, line):
    monkeypatch.setattr(csv_pixels, "_BLOCK_BYTES", 1)  # some blocks are blank alone
    images, labels = draw(10, 2)
    path = write_csv(tmp_path / "d.csv", images, labels)
    text = path.read_text().replace("\n", f"\n{line}\n")
    path.write_bytes(text.encode())
    loaded = sources._load_path(str(path))
    assert (loaded.train.images[..., 0] == images).all() and (loaded.train.labels == labels).all()


def test_a_lone_carriage_return_makes_no_row(tmp_path):
    path = write_csv(tmp_path / "d.csv", *draw(10, 2))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:4], lines[4] + b"\r" + lines[5], *lines[6:]]))
    assert "row 5: there should be 17 columns, as in the header. Received: 33" in refused(path)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("nan", "'nan'"),
        ("", "''"),
        ("256", "0 to 255. Received: '256'"),
        ("-1", "'-1'"),
        ("1.5", "'1.5'"),
        ("1_0", "'1_0'"),
        ("\u0663", "Received"),
        ("99999999999999999999", "99999"),
    ],
)
def test_wrong_pixel_is_told_with_row_and_column(tmp_path, field, told):
    path = write_csv(tmp_path / "d.csv", *draw(10, 2))
    lines = path.read_text().split("\n")
    fields = lines[6].split(",")
    lines[6] = ",".join([*fields[:3], field, *fields[4:]])
    path.write_text("\n".join(lines), encoding="utf-8")
    message = refused(path)
    assert f"{path}, row 7, column pixel3" in message and told in message


def test_row_of_an_error_counts_all_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_pixels, "_BLOCK_BYTES", 100)
    path = write_csv(tmp_path / "d.csv", *draw(30, 2))
    path.write_text(path.read_text() + "1,2\n")
    assert "row 32: there should be 17 columns, as in the header. Received: 2" in refused(path)


@pytest.mark.parametrize("num_columns", [783, 784, 786])
def test_wrong_number_of_columns_is_told(tmp_path, num_columns):
    header = ",".join(["label", *(f"pixel{i}" for i in range(1, num_columns))])
    row = ",".join("0" * num_columns)
    (tmp_path / "fashion-mnist_train.csv").write_text(f"{header}\n{row}\n")
    assert f"{num_columns} columns" in refused(tmp_path)


@pytest.mark.parametrize("num_columns", [784, 786])
def test_row_with_another_number_of_columns_is_told(tmp_path, num_columns):
    path = write_csv(tmp_path / "fashion-mnist_train.csv", *draw(10, 2, (28, 28)))
    lines = path.read_text().split("\n")
    lines[3] = ",".join("0" * num_columns)
    path.write_text("\n".join(lines))
    assert f"row 4: there should be 785 columns, as in the header. Received: {num_columns}" in (
        refused(path)
    )


def test_label_outside_fashion_mnist_is_told(tmp_path):
    images, labels = draw(20, 10, (28, 28))
    labels[4] = 10
    path = write_csv(tmp_path / "fashion-mnist_train.csv", images, labels)
    assert "row 6, column label: there should be a whole number from 0 to 9" in refused(path)


def test_csv_must_be_the_training_one_with_its_test(tmp_path):
    path = write_csv(tmp_path / "fashion-mnist_train.csv", *draw(20, 10, (28, 28)))
    assert "fashion-mnist_test.csv should be there" in refused(path)
    path = write_csv(tmp_path / "my_test.csv", *draw(20, 10))
    assert "a test set" in refused(path)


@pytest.mark.parametrize("content", ["", "1,2,3\n", "label,pixel1\n", "\0\0\xff", "label\n1\n"])
def test_csv_without_rows_or_header_is_told(tmp_path, content):
    (tmp_path / "d.csv").write_text(content)
    assert str(tmp_path / "d.csv") in refused(tmp_path / "d.csv")


@FUZZ
@given(data=st.data())
def test_damaged_csv_is_told_or_consistent(tmp_path, data):
    path = write_csv(tmp_path / "d.csv", *draw(12, 2))
    path.write_bytes(damage(data, path.read_bytes()))
    loaded = load_or_refuse(path)
    if loaded is not None:
        check_invariants(loaded)


# --- NPZ ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        lambda x: x.astype(np.int64),
        lambda x: x.astype(">f4"),
        lambda x: (x / 255).astype(np.float32),
        lambda x: x / 255,
    ],
)
def test_npz_gives_back_the_pixels(tmp_path, shape, convert):
    train, test = draw(20, 2, shape), draw(6, 2, shape, seed=1)
    path = write_npz(
        tmp_path / "d.npz",
        (convert(train[0]), train[1][:, np.newaxis].astype(float)),
        (convert(test[0]), test[1]),
        class_names=np.array(["cat", "dog"]),
    )
    loaded = sources._load_path(str(path))
    assert (loaded.train.images.reshape(train[0].shape) == train[0]).all()
    assert (loaded.test.images.reshape(test[0].shape) == test[0]).all()
    assert (loaded.train.labels == train[1]).all()
    assert loaded.class_names == ("cat", "dog")
    check_invariants(loaded)


X, Y = draw(20, 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x_train": np.where(X == X[0, 0, 0], np.nan, X)}, "without NaN"),
        ({"x_train": np.where(X == X[0, 0, 0], np.inf, X)}, "inf"),
        ({"x_train": X / 255, "x_test": X.astype(float)}, "unclear"),
        ({"x_test": X / 255}, "unclear"),
        ({"x_test": X // 255}, "unclear"),
        ({"x_test": np.ones(X.shape, np.float32)}, "unclear"),
        ({"x_train": X // 16, "x_test": X // 16}, "0 to 15"),
        ({"x_train": X / 250, "x_test": X / 250}, "to 1.02"),
        ({"x_train": X + 1000.0}, "[0, 255]"),
        ({"x_train": X.astype(int) - 300}, "[0, 255]"),
        ({"x_train": X > 9}, "unclear"),
        ({"x_train": X.astype(str)}, "uint8 images"),
        ({"x_train": X.astype(object)}, "Object arrays cannot be loaded"),
        ({"x_train": X.reshape(20, 16)}, "(20, 16)"),
        ({"x_train": np.zeros((20, 3, 4, 4), np.uint8)}, "(20, 3, 4, 4)"),
        ({"x_train": X[:0]}, "(0, 4, 4, 1)"),
        ({"x_test": X[:, :3]}, "one shape"),
        ({"y_train": Y[:19]}, "20 images, 19 labels"),
        ({"y_train": Y + 0.5}, "y_train[0] should be a whole number"),
        ({"y_train": np.where(Y == 1, np.nan, 0)}, "Received: nan"),
        ({"y_train": Y.astype(int) - 1}, "Received: -1"),
        ({"y_train": np.full(20, 2**63, np.uint64)}, "whole number"),
        ({"y_train": Y.astype(int) + 2**30}, "Received: 0 for test image 0"),
        ({"y_train": np.eye(2)[Y]}, "y_test should have 2 columns, as"),
        ({"y_train": np.eye(2)[Y] / 2}, "y_train[0] should be one-hot"),
        ({"y_train": Y.astype(str)}, "all texts. Received: both"),
        ({"y_train": Y.astype("M8[s]")}, "or a text for each image"),
        ({"x_val": X, "y_val": Y, "x_valid": X}, "one validation part. Received: x_valid, x_val"),
        ({"x_val": X}, "no y_val"),
        ({"y_train": np.zeros(20, int), "y_test": np.zeros(20, int)}, "two classes"),
        ({"y_test": Y + 1}, "labels should be 0 to 1. Received: 2 for test image 1"),
        ({"class_names": np.array(["a"])}, "0 to 0"),
        ({"class_names": np.array(["a", "b", "c"])}, "0 of class 'c'"),
        ({"class_names": np.array(["a", "a"])}, "all different"),
        ({"class_names": np.array([1, 2])}, "texts"),
        ({"y_test": None}, "no y_test"),
        ({"x_test": None}, "no x_test"),
        ({"y_train": None}, "no y_train"),
        ({"x_train": None, "x_test": None, "y_test": None}, "no x_train"),
    ],
)
def test_wrong_npz_is_told(tmp_path, change, told):
    arrays = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y} | change
    arrays = {key: array for key, array in arrays.items() if array is not None}
    np.savez(tmp_path / "d.npz", **arrays)
    message = refused(tmp_path / "d.npz")
    assert told in message and str(tmp_path / "d.npz") in message


@pytest.mark.parametrize("names", [None, ("cat", "dog")])
def test_npz_without_a_test_part_gives_up_a_fifth(tmp_path, names):
    path = tmp_path / "d.npz"
    images, labels = draw(50, 2)
    more = {} if names is None else {"class_names": np.array(names)}
    np.savez(path, x_train=images, y_train=labels, **more)
    loaded = sources._load_path(str(path))
    assert loaded.test is None and loaded.class_names == (names or ("0", "1"))
    first, second = (load_splits(str(path), seed=seed) for seed in (0, 1))
    assert first.test.num_images == 10 and first.train.num_images == 36
    assert "20% held out for the test, the same for every seed" in first.provenance
    assert fingerprint(first.test) == fingerprint(second.test)
    assert fingerprint(first.validation) != fingerprint(second.validation)


@pytest.mark.parametrize("with_test", [True, False])
def test_arrays_in_memory_are_a_data_set_and_come_back_from_a_file(tmp_path, with_test):
    arrays = {"x_train": X / 255, "y_train": Y, "class_names": np.array(["cat", "dog"])}
    if with_test:
        arrays |= {"x_test": X[:6] / 255, "y_test": Y[:6]}
    loaded = npz.from_arrays(arrays, "arrays: ", "memory", "given")
    check_invariants(loaded)
    assert (loaded.train.images[..., 0] == X).all() and loaded.class_names == ("cat", "dog")
    assert sources.load_undivided(loaded) is loaded
    npz.write_arrays(tmp_path / "d.npz", loaded)
    again = sources._load_path(str(tmp_path / "d.npz"))
    assert again.class_names == loaded.class_names
    assert fingerprint(again.train) == fingerprint(loaded.train)
    assert (again.test is None) == (loaded.test is None) == (not with_test)
    if with_test:
        assert fingerprint(again.test) == fingerprint(loaded.test)
    one, other = load_splits(loaded, seed=3), load_splits(str(tmp_path / "d.npz"), seed=3)
    for part, split in one.parts().items():
        assert fingerprint(split) == fingerprint(other.parts()[part])
    with pytest.raises(InputError, match=r"arrays: y_train\[0\] should be a whole number"):
        npz.from_arrays(arrays | {"y_train": Y + 0.5}, "arrays: ", "memory", "given")


def test_arrays_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    loaded = npz.from_arrays({"x_train": X, "y_train": Y}, "", "memory", "given")
    npz.write_arrays(tmp_path / "d.npz", loaded)
    before = (tmp_path / "d.npz").read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npz.np, "savez", fail)
    with pytest.raises(OSError, match="No space"):
        npz.write_arrays(tmp_path / "d.npz", loaded)
    assert os.listdir(tmp_path) == ["d.npz"] and (tmp_path / "d.npz").read_bytes() == before


def test_files_that_only_look_like_npz_are_told(tmp_path):
    path = tmp_path / "d.npz"
    with open(path, "wb") as file:
        np.save(file, X)
    assert str(path) in refused(path)
    path.write_bytes(b"")
    assert str(path) in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", b"\x93NUMPY\x01\x00\x02\x00{}")
    assert "x_train" in refused(path)


def test_npz_header_that_claims_fewer_images_is_told(tmp_path):
    # np.load would return half of the images without a word.
    write_npz(tmp_path / "d.npz", (X, Y), (X, Y))
    with zipfile.ZipFile(tmp_path / "d.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in ("x_train.npy", "y_train.npy"):
        members[name] = members[name].replace(b"(20,", b"(10,")
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "more bytes" in refused(tmp_path / "d.npz")


@FUZZ
@given(data=st.data())
def test_damaged_npz_is_told_or_harmless(tmp_path, data):
    path = tmp_path / "d.npz"
    if not (tmp_path / "good.npz").exists():
        write_npz(tmp_path / "good.npz", (X, Y), (X[:6], Y[:6]))
    path.write_bytes(damage(data, (tmp_path / "good.npz").read_bytes()))
    loaded = load_or_refuse(path)
    if loaded is not None:
        assert (loaded.train.images[..., 0] == X).all() and (loaded.train.labels == Y).all()
        assert (loaded.test.images[..., 0] == X[:6]).all() and (loaded.test.labels == Y[:6]).all()


# --- Folders of images ----------------------------------------------------------------------


def test_image_folder_without_splits(tmp_path):
    root = write_images(tmp_path / "pets", ["dog", "cat"], count=10)
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / "cat" / ".hidden.png").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / "cat" / "0.png").rename(root / "cat" / "0.PNG")
    splits = load_splits(str(root))
    assert splits.name == "pets" and splits.class_names == ("cat", "dog")
    assert splits.train.are_files and splits.train.images.dtype == object
    assert [splits.train.num_images, splits.validation.num_images, splits.test.num_images] == (
        [14, 2, 4]
    )
    assert "20% held out" in splits.provenance
    paths = [path for s in (splits.train, splits.validation, splits.test) for path in s.images]
    assert len(set(paths)) == 20 and str(root / "cat" / "0.PNG") in paths
    for split in (splits.train, splits.validation, splits.test):
        assert [Path(p).parent.name for p in split.images] == (
            [splits.class_names[label] for label in split.labels]
        )


@pytest.mark.parametrize("validation", ["validation", "val", "VALID"])
def test_image_folder_with_splits(tmp_path, validation):
    for part, count in (("train", 5), (validation, 2), ("test", 3)):
        write_images(tmp_path / part, ["a", "b", "c"], count)
    splits = load_splits(str(tmp_path), seed=1)
    assert [splits.train.num_images, splits.validation.num_images, splits.test.num_images] == (
        [15, 6, 9]
    )
    assert all("/test/" in Path(path).as_posix() for path in splits.test.images)
    assert all(f"/{validation}/" in Path(path).as_posix() for path in splits.validation.images)


def test_a_class_may_be_called_train(tmp_path):
    write_images(tmp_path, ["bus", "train"])
    assert load_splits(str(tmp_path)).class_names == ("bus", "train")


def test_class_sets_must_agree(tmp_path):
    write_images(tmp_path / "train", ["a", "b"])
    write_images(tmp_path / "test", ["a", "c"])
    message = refused(tmp_path)
    assert "same class folders" in message and "'b', 'c'" in message


def test_wrong_folders_are_told(tmp_path):
    assert "empty folder" in refused(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"x")
    assert "a folder with photo.png" in refused(tmp_path)
    (tmp_path / "cat").mkdir()
    assert f"{tmp_path / 'cat'} should hold the images of a class" in refused(tmp_path)
    write_images(tmp_path / "test", ["a", "b"])
    assert "folder train" in refused(tmp_path)
    write_images(tmp_path / "train", ["a", "b"])
    write_images(tmp_path / "val", ["a", "b"])
    write_images(tmp_path / "valid", ["a", "b"])
    assert "one folder for validation. Received: val, valid" in refused(tmp_path)


def test_one_class_is_refused(tmp_path):
    write_images(tmp_path, ["only"])
    assert "at least two classes" in refused(tmp_path)


def test_wrong_paths_are_told(tmp_path):
    assert "does not exist" in refused(tmp_path / "no\nsuch")
    assert "does not exist" in refused("")
    assert "did you mean fashion-mnist?" in refused("fashion_mnist")
    assert "did you mean sample?" in refused("samples")
    assert "fashion-mnist" in refused("mnist") and "digits" in refused("MNIST")
    (tmp_path / "x.zip").write_bytes(b"x")
    assert "another kind" in refused(tmp_path / "x.zip")


def test_every_source_is_recognised_by_itself_alone(tmp_path):
    # Tests run over the table: a new row needs an example here.
    write_idx(tmp_path / "idx", draw(20, 2), draw(4, 2))
    write_images(tmp_path / "images", ["a", "b"])
    examples = {
        "IDX files": tmp_path / "idx",
        "CSV files": write_csv(tmp_path / "d.csv", X, Y),
        "NPZ file": write_npz(tmp_path / "d.npz", (X, Y), (X, Y)),
        "files of records": tmp_path / "d.tar",
        "folder of images": tmp_path / "images",
    }
    (tmp_path / "d.tar").write_bytes(tar_bytes(record_examples()))
    assert [source.name for source in SOURCES] == list(examples)
    for source in SOURCES:
        assert source.name == next(s.name for s in SOURCES if s.recognise(examples[source.name]))
        assert source.load(examples[source.name]).train.num_images > 0


# --- Dividing -------------------------------------------------------------------------------


@pytest.fixture
def uneven(tmp_path):
    # 100, 30 and 3 images of three classes, without a test part; pixel values are unique.
    labels = np.repeat([0, 1, 2], [100, 30, 3])
    images = np.arange(133, dtype=np.uint8)[:, np.newaxis, np.newaxis]
    return str(write_csv(tmp_path / "uneven.csv", images, labels))


def test_division_is_complete_disjoint_and_has_every_class(uneven):
    for seed in range(5):
        splits = load_splits(uneven, seed=seed)
        parts = (splits.train, splits.validation, splits.test)
        assert sum(part.num_images for part in parts) == 133
        assert len(set().union(*map(rows_of, parts))) == 133
        assert all(set(part.labels) == {0, 1, 2} for part in parts)
        assert np.bincount(splits.test.labels).tolist() == [20, 6, 1]


@pytest.mark.parametrize("as_files", [True, False], ids=["files", "arrays"])
def test_near_duplicates_are_held_out_all_or_none(tmp_path, as_files):
    path, pictures_in = write_copies(tmp_path / "copies", as_files)
    for together in (True, False):
        splits = load_splits(path, keeps_duplicates_together=together)
        parts = [set(pictures_in(part)) for part in splits.parts().values()]
        shared = set.union(*(one & other for one in parts for other in parts if one is not other))
        assert bool(shared) is not together
        sizes = [part.num_images for part in splits.parts().values()]
        assert sizes == pytest.approx([86, 10, 24], abs=2)
        assert all(set(part.labels) == {0, 1} for part in splits.parts().values())
    assert "120 near duplicates kept in one part" in load_splits(path).provenance
    assert pictures_in(load_splits(path).test) == pictures_in(load_splits(path, seed=1).test)


@pytest.mark.parametrize("others", [0, 1, 4])
def test_a_class_that_is_mostly_one_picture_is_in_every_part(tmp_path, others):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (30, 8, 8), np.uint8)
    images[: 15 - others] = images[0]
    np.savez(tmp_path / "d.npz", x_train=images, y_train=np.arange(30) // 15)
    splits = load_splits(str(tmp_path / "d.npz"))
    assert all(set(part.labels) == {0, 1} for part in splits.parts().values())
    assert sum(part.num_images for part in splits.parts().values()) == 30
    same = [
        (part.images[..., 0] == images[0]).all((1, 2)).sum() for part in splits.parts().values()
    ]
    assert bool(max(same) == 15 - others) is (others == 4)  # with fewer others it must be divided


def test_test_images_never_depend_on_seed_or_fraction(uneven):
    first = load_splits(uneven, seed=0)
    second = load_splits(uneven, seed=1, validation_fraction=0.3)
    assert fingerprint(first.test) == fingerprint(second.test)
    assert fingerprint(first.validation) != fingerprint(second.validation)
    assert second.validation.num_images > first.validation.num_images


def test_validation_images_depend_on_the_seed_only(tiny, tmp_path):
    write_idx(tmp_path / "d", *tiny)
    one, same, other = (load_splits(str(tmp_path / "d"), seed=seed) for seed in (3, 3, 4))
    assert fingerprint(one.train) == fingerprint(same.train)
    assert fingerprint(one.validation) == fingerprint(same.validation)
    assert fingerprint(one.validation) != fingerprint(other.validation)
    assert fingerprint(one.test) == fingerprint(other.test)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_any_fraction_leaves_every_class_on_both_sides(tiny, tmp_path, fraction):
    write_idx(tmp_path / "d", *tiny)
    splits = load_splits(str(tmp_path / "d"), validation_fraction=fraction)
    assert set(splits.train.labels) == set(splits.validation.labels) == set(range(10))


@pytest.mark.parametrize("arguments", [{"validation_fraction": 0}, {"validation_fraction": 1.0}])
def test_wrong_fraction_is_told(arguments):
    assert "validation_fraction" in refused("sample", **arguments)


def test_class_too_small_to_divide_is_told(tmp_path):
    labels = np.array([0] * 10 + [1] * 2)
    path = write_csv(tmp_path / "d.csv", draw(12, 2)[0], labels)
    message = refused(path)
    assert "at least 3 training images" in message and "2 of class '1'" in message
    write_npz(tmp_path / "d.npz", (X[:11], np.array([0] * 10 + [1])), (X, Y))
    assert "at least 2 training images" in refused(tmp_path / "d.npz")


def test_limit_is_stratified_and_each_limit_holds_the_lower_ones(uneven):
    before: set = set()
    for limit in (1, 3, 10, 40, 1000):
        splits = load_splits(uneven, limit=limit)
        assert splits.train.num_images == min(limit, load_splits(uneven).train.num_images)
        assert splits.test.num_images == min(limit, 27)
        assert before <= rows_of(splits.train)
        before = rows_of(splits.train)
        if limit >= 3:
            assert set(splits.train.labels) == set(splits.test.labels) == {0, 1, 2}
        if limit == 40:
            assert np.bincount(splits.train.labels).tolist() == pytest.approx([30, 9, 1], abs=1)
            assert "at most 40 of each split" in splits.provenance
    assert "limit should be at least 1" in refused(uneven, limit=0)


# --- Fingerprints ---------------------------------------------------------------------------


def test_fingerprint_of_arrays_sees_every_change():
    images = X[..., np.newaxis]
    split = Split(images, Y.astype(np.int64))
    other = images.copy()
    other[7, 1, 1, 0] ^= 1
    changed = [
        Split(other, split.labels),
        Split(images, split.labels[::-1]),
        Split(images.reshape(20, 2, 8, 1), split.labels),
        split.take(np.arange(19)),
        split.take(np.arange(20)[::-1]),
    ]
    prints = {fingerprint(s) for s in (split, *changed)}
    assert len(prints) == 6 and all(len(p) == 64 for p in prints)
    fortran = Split(np.asfortranarray(images), split.labels)
    assert fingerprint(fortran) == fingerprint(split)


def test_fingerprint_of_files_sees_pixels_and_labels_but_neither_names_nor_the_place(tmp_path):
    root = write_images(tmp_path / "one", ["a", "b"])
    first = fingerprint(load_splits(str(root)).train)
    root = root.rename(tmp_path / "two")
    (root / "a" / "0.png").rename(root / "a" / "00.png")
    splits = load_splits(str(root))
    assert fingerprint(splits.train) == first
    other = splits.train.labels.copy()
    other[0] = 1
    assert fingerprint(Split(splits.train.images, other)) != first
    path = Path(splits.train.images[0])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # the same name and size
    path.write_bytes(content)
    assert fingerprint(splits.train) != first
    path.unlink()
    path.symlink_to("nowhere")  # told when it is decoded
    assert fingerprint(splits.train) != first


@pytest.mark.parametrize("position", [0, 20_000, 54_321, 199_999])
def test_fingerprint_of_large_files_sees_every_byte(tmp_path, position):
    content = bytearray(np.random.RandomState(0).bytes(200_000))
    path = tmp_path / "large.png"
    path.write_bytes(content)
    split = Split(np.array([str(path)], object), np.zeros(1, np.int64))
    first = fingerprint(split)
    facts = path.stat()
    content[position] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # nothing but the content tells
    assert fingerprint(split) != first


def test_a_pipe_or_a_folder_in_an_images_place_has_a_fingerprint(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    paths = [str(tmp_path / name) for name in ("pipe.png", "folder.png", "none.png", "\0.png")]
    prints = {fingerprint(Split(np.array([path], object), np.zeros(1, np.int64))) for path in paths}
    assert len(prints) == 1  # unreadable, which is told when they are decoded


def test_a_fingerprint_of_names_is_compared_as_such(tmp_path):
    # What a run of 0.1.0 kept: SHA-256 of "path\0size\0label\n" for each file.
    root = write_images(tmp_path / "one", ["a", "b"], count=3)
    split = Split(np.array([str(root / "a" / "0.png")], object), np.zeros(1, np.int64), str(root))
    size = (root / "a" / "0.png").stat().st_size
    kept = hashlib.sha256(f"a/0.png\0{size}\0{0}\n".encode()).hexdigest()
    assert fingerprint(split, like=kept) == kept != fingerprint(split)
    assert is_outdated(split, kept) and not is_outdated(split, fingerprint(split))
    arrays = Split(X[..., np.newaxis], Y.astype(np.int64))
    assert not is_outdated(arrays, kept) and fingerprint(arrays, like=kept) == fingerprint(arrays)


def test_a_run_of_an_older_version_goes_on_with_a_word_of_caution(tmp_path):
    from transfer.training.data import load_data

    root = write_images(tmp_path / "one", ["a", "b"], count=8)
    config = Config(data=str(root))
    kept = {}
    for name, split in load_splits(str(root)).parts().items():
        lines = (
            f"{Path(path).relative_to(root).as_posix()}\0{os.path.getsize(path)}\0{label}\n"
            for path, label in zip(split.images, split.labels, strict=True)
        )
        kept[name] = hashlib.sha256("".join(lines).encode()).hexdigest()
    found = []
    told = printed(lambda: found.append(load_data(config, True, kept_fingerprints=kept)), width=300)
    assert found[0].fingerprints == kept and "whether their pixels have changed" in told
    told = printed(lambda: found.append(load_data(config, True)))
    assert found[1].fingerprints != kept and "Warning" not in told
