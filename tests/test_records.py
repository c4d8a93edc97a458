"""Files of many encoded images: Parquet, WebDataset's tar, TFRecord, from here and from afar."""

import io
import json
import struct
import tarfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import make_stripes
from transfer.auditing.findings import read_images
from transfer.data import decode
from transfer.data.decode import decode_splits
from transfer.data.fingerprints import fingerprint
from transfer.data.streamed import StreamedImages
from transfer.datasets.formats import parquet, tfrecord
from transfer.datasets.formats.record_files import FORMATS, expand_records
from transfer.datasets.sources import describe_origin, load_splits, load_undivided
from transfer.errors import InputError, Interrupted
from transfer.progress import PhaseProgress
from transfer.runs.facts import read_facts
from transfer.storage import remote

NAMES = ("level", "upright")


def encode(image):
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def examples(num_images=60, seed=0):
    images, labels = make_stripes(num_images, seed, size=12)
    return [(encode(image), int(label)) for image, label in zip(images, labels, strict=True)]


def tar_bytes(samples):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, (content, label) in enumerate(samples):
            for suffix, one in (("png", content), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"a/{number:04d}.{suffix}")
                member.size = len(one)
                archive.addfile(member, io.BytesIO(one))
    return buffer.getvalue()


def parquet_bytes(samples, as_struct=True):
    import pyarrow as pa
    import pyarrow.parquet as pq

    contents = [content for content, _ in samples]
    images = [{"bytes": one, "path": None} for one in contents] if as_struct else contents
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": images, "label": [label for _, label in samples]})
    buffer = io.BytesIO()
    table = table.replace_schema_metadata(metadata if as_struct else None)
    pq.write_table(table, buffer, row_group_size=25)
    return buffer.getvalue()


def example_bytes(content, label):
    import tensorflow as tf

    def feature(**values):
        return tf.train.Feature(**values)

    features = {
        "image/height": feature(float_list=tf.train.FloatList(value=[12.0])),
        "image/encoded": feature(bytes_list=tf.train.BytesList(value=[content])),
        "image/class/label": feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def tfrecord_bytes(samples, tmp_path):
    import tensorflow as tf

    path = str(tmp_path / "written")
    with tf.io.TFRecordWriter(path) as writer:
        for content, label in samples:
            writer.write(example_bytes(content, label))
    return (tmp_path / "written").read_bytes()


def pack(suffix, samples, tmp_path):
    if suffix == ".tfrecord":
        return tfrecord_bytes(samples, tmp_path)
    return tar_bytes(samples) if suffix == ".tar" else parquet_bytes(samples)


SUFFIXES = (".parquet", ".tar", ".tfrecord")


@pytest.fixture(params=SUFFIXES)
def stored(request, tmp_path):
    """Two files for training and one for the test, and what is in them."""
    samples, test = examples(), examples(20, 1)
    folder = tmp_path / "data"
    folder.mkdir()
    for name, part in (("train-0", samples[:40]), ("train-1", samples[40:]), ("test", test)):
        (folder / f"{name}{request.param}").write_bytes(pack(request.param, part, tmp_path))
    (folder / "README.md").write_text("x")
    return folder, samples, test


# --- The same as files of their own ---------------------------------------------------------


def test_records_load_as_other_data_sets(stored):
    folder, samples, test = stored
    loaded = load_undivided(str(folder))
    assert loaded.class_names == (NAMES if (folder / "test.parquet").exists() else ("0", "1"))
    assert loaded.train.labels.tolist() == [label for _, label in samples]
    assert [one.read() for one in loaded.train.encoded] == [content for content, _ in samples]
    assert [one.read() for one in loaded.test.encoded] == [content for content, _ in test]
    told = describe_origin(loaded)
    assert "3 " in told and "passed over 1: 1 .md files" in told
    splits = decode_splits(load_splits(str(folder)), 12)
    assert splits.test.images.shape == (20, 12, 12, 1)
    expected = np.stack([np.asarray(Image.open(io.BytesIO(one)))[..., None] for one, _ in test])
    np.testing.assert_array_equal(splits.test.images, expected)
    assert splits.test.names[3].startswith("test.") and splits.test.names[3].endswith("#3")


def test_a_fingerprint_is_that_of_the_content(stored, tmp_path):
    folder, samples, _ = stored
    moved = tmp_path / "moved"
    folder.rename(moved)
    before = fingerprint(load_undivided(str(moved)).train)
    other = tmp_path / "one.tar"
    other.write_bytes(tar_bytes(samples))
    assert fingerprint(load_undivided(str(other)).train) == before
    other.write_bytes(tar_bytes(samples[::-1]))
    assert fingerprint(load_undivided(str(other)).train) != before


def test_records_are_read_from_afar(stored):
    import fsspec

    folder, samples, _ = stored
    memory = fsspec.filesystem("memory")
    memory.rm("/far", recursive=True) if memory.exists("/far") else None
    memory.put(str(folder), "/far", recursive=True)
    here = load_undivided(str(folder))
    for url in ("memory:///far", f"file://{folder}"):
        loaded = load_undivided(url)
        assert fingerprint(loaded.train) == fingerprint(here.train)
        assert loaded.class_names == here.class_names and loaded.location == url
    file = next(iter(sorted(memory.find("/far"), reverse=True)))
    (one, *_), name = expand_records([f"memory://{file}"]), f"memory://{file}"
    assert one.name.startswith(name) and one.read() == samples[40][0]


def test_the_audit_sees_records(stored):
    folder, samples, _ = stored
    images = read_images(load_undivided(str(folder)), 12)
    assert images.names[0].startswith("train-0.") and len(images.names) == 80


def test_what_predict_sees_is_in_order(stored):
    folder, samples, _ = stored
    path = next(iter(folder.glob("train-0*")))
    found = list(expand_records(["before.png", str(path), "after.png"]))
    assert (found[0], found[-1]) == ("before.png", "after.png")
    assert [one.read() for one in found[1:-1]] == [content for content, _ in samples[:40]]
    assert len({one.name for one in found[1:-1]}) == 40


def test_plain_bytes_are_images_too(tmp_path):
    path = tmp_path / "mine.parquet"
    path.write_bytes(parquet_bytes(examples(), as_struct=False))
    loaded = load_undivided(str(path))
    assert loaded.class_names == ("0", "1") and loaded.train.num_images == 60


def test_an_archive_beside_class_folders_is_passed_over(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.png").write_bytes(examples(1)[0][0])
    (tmp_path / "all.tar").write_bytes(tar_bytes(examples(4)))
    loaded = load_undivided(str(tmp_path))
    assert loaded.class_names == ("a", "b") and len(loaded.passed_over) == 1


def test_names_are_labels_and_what_has_none_is_counted(tmp_path):
    path = tmp_path / "train.tar"
    samples = [(content, NAMES[label]) for content, label in examples(10)]
    content = tar_bytes(samples)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        kept = [(member, archive.extractfile(member).read()) for member in archive]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, one in kept[:-1]:  # the last one's label is missing
            archive.addfile(member, io.BytesIO(one))
        archive.addfile(tarfile.TarInfo("b/1.json"), io.BytesIO(b""))
    path.write_bytes(buffer.getvalue())
    loaded = load_undivided(str(path))
    assert loaded.class_names == NAMES and loaded.train.num_images == 9
    told = describe_origin(loaded)
    assert "1 images without a label" in told and "1 .json files" in told


# --- Odd and hostile ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_cut_off_or_empty_is_told(tmp_path, suffix):
    whole = pack(suffix, examples(10), tmp_path)
    path = tmp_path / f"cut{suffix}"
    end = 10 * 4 * 512 if suffix == ".tar" else len(whole) - 1  # what follows in a tar is empty
    for size in (0, 7, len(whole) // 2, end):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"cut\{suffix}.*(cut off|damaged|Received)"):
            load_undivided(str(path))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.tar", b"\x1f\x8b" + bytes(600), "not be compressed.*gzip"),
        ("a.tar", b"x" * 2000, "should be a tar"),
        ("a.tfrecord", b"\x1f\x8b" + bytes(600), "uncompressed TFRecord"),
        ("a.tfrecord", struct.pack("<QI", 1 << 62, 5) + bytes(99), "length at byte 0"),
        ("a.parquet", b"PAR1" + bytes(50) + b"\xff\xff\xff\x7fPAR1", "no Parquet file"),
    ],
)
def test_what_is_no_such_file_is_told(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        load_undivided(str(tmp_path / name))


def test_odd_tables_and_records_are_told(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tensorflow as tf

    path = tmp_path / "odd.parquet"
    for columns, told in (
        ({"text": ["x"], "label": [1]}, "one column of encoded images.*text .string., label"),
        ({"a": [b"x"], "b": [b"y"]}, "one column of encoded images"),
        ({"image": [b"x"], "label": [0.5]}, "whole numbers or texts"),
        ({"image": [b"x"]}, "training images with labels.*1 images without a label"),
        ({"image": [b"x", b"y"], "label": [-1, 0]}, "whole number from 0. Received: -1"),
    ):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(InputError, match=told):
            load_undivided(str(path))
    with tf.io.TFRecordWriter(str(tmp_path / "odd.tfrecord")) as writer:
        writer.write(b"no example")
    with pytest.raises(InputError, match="record 0 should be a tf.train.Example"):
        load_undivided(str(tmp_path / "odd.tfrecord"))
    with pytest.raises(InputError, match="files of one format.*Parquet and TFRecord"):
        load_undivided(f"file://{tmp_path}")


def test_a_url_that_leads_nowhere_is_told():
    for url in ("memory:///nothing", "s3x://bucket/data"):
        with pytest.raises(InputError, match=url):
            load_undivided(url)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name.split(".")[0] in ("pyarrow", "fsspec"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    (tmp_path / "a.parquet").write_bytes(b"x")
    monkeypatch.setattr(builtins, "__import__", missing)
    for name in (str(tmp_path / "a.parquet"), "memory:///x"):
        with pytest.raises(InputError, match=r"pip install 'transfer\[shards\]'"):
            load_undivided(name)


@given(st.binary(max_size=300), st.integers(0, 2**31), st.data())
def test_an_example_is_read_as_tensorflow_reads_it(content, label, data):
    record = example_bytes(content, label)
    (start, end), found = tfrecord._parse_example(record)
    assert (record[start:end], found) == (content, label)
    damaged = bytearray(record)
    damaged[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    try:
        (start, end), _ = tfrecord._parse_example(bytes(damaged))
        assert 0 <= start <= end <= len(damaged)
    except ValueError:
        pass


@given(st.data())
def test_a_damaged_file_is_told_or_read(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(SUFFIXES))
    folder = tmp_path_factory.getbasetemp()
    whole = _packed(suffix, folder)
    damaged = bytearray(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged[at : at + data.draw(st.integers(1, 8))] = data.draw(st.binary(max_size=8))
    path = folder / f"damaged{suffix}"
    path.write_bytes(damaged)
    try:
        for found in FORMATS[suffix].scan(str(path), True, Counter()):
            assert found.content is not None
    except InputError as error:
        assert "damaged" in str(error)


_kept = {}


def _packed(suffix, folder):
    if suffix not in _kept:
        _kept[suffix] = pack(suffix, examples(4), folder)
    return _kept[suffix]


def test_a_row_group_that_would_fill_the_memory_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_MOST_GROUP_BYTES", 100)
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(examples()))
    with pytest.raises(InputError, match="row group 0 should have at most"):
        load_undivided(str(tmp_path / "a.parquet"))


def test_files_are_closed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_MOST_OPEN", 2)
    for number in range(5):
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes(examples(4, number)))
    loaded = load_undivided(str(tmp_path))
    assert loaded.train.num_images == 20 and all(one.read() for one in loaded.train.encoded)
    assert len(remote._handles) <= 2


# --- Larger than memory and disk ------------------------------------------------------------


def leave_no_room(monkeypatch):
    monkeypatch.setattr(decode, "usable_memory", lambda: 0)
    monkeypatch.setattr(decode, "_has_room", lambda num_bytes: False)


def test_what_has_no_room_is_decoded_as_it_is_needed(stored, monkeypatch):
    folder, _, _ = stored
    expected = decode_splits(load_splits(str(folder)), 12)
    leave_no_room(monkeypatch)
    streamed = decode_splits(load_splits(str(folder)), 12)
    assert isinstance(streamed.train.images, StreamedImages)
    assert "decoded anew in every pass" in streamed.origin
    for part, split in streamed.parts().items():
        whole = expected.parts()[part].images
        assert split.images.shape == whole.shape and len(split.images) == len(whole)
        order = np.random.default_rng(0).permutation(len(whole))
        np.testing.assert_array_equal(split.images[order], whole[order])
        np.testing.assert_array_equal(split.images[3:9], whole[3:9])
        np.testing.assert_array_equal(split.images[5], whole[5])
        np.testing.assert_array_equal(split.take(order[:4]).images, whole[order[:4]])


def test_what_is_decoded_as_it_is_needed_is_known_without_decoding(tmp_path, monkeypatch):
    leave_no_room(monkeypatch)

    def known(name, seed, size):
        (tmp_path / name).write_bytes(tar_bytes(examples(20, seed)))
        split = decode_splits(load_splits(str(tmp_path / name)), size).train
        with monkeypatch.context() as closed:
            closed.setattr(decode, "decode_files", None)  # would raise
            return fingerprint(split)

    one = known("a.tar", 0, 12)
    assert one == known("b.tar", 0, 12)
    assert len({one, known("c.tar", 1, 12), known("a.tar", 0, 8)}) == 3


def test_a_streamed_run_is_the_same_as_one_in_memory(
    tiny_backbone, tiny_inputs, tmp_path, monkeypatch
):
    from transfer.config import Config
    from transfer.training import features
    from transfer.training.run import resume, train

    data = tmp_path / "train.tar"
    data.write_bytes(tar_bytes(examples(100)))
    config = Config(
        **(tiny_inputs | {"data": str(data)}),
        image_size=32,
        batch_size=16,
        head_epochs=2,
        finetune_epochs=0,
        flip=True,
    )
    whole = train(config, run_dir=tmp_path / "whole")
    leave_no_room(monkeypatch)
    monkeypatch.setattr(features, "MEMORY_SHARE", 0)  # read from the disk
    monkeypatch.setattr(features, "_FORMAT", 99)  # computed again
    with monkeypatch.context() as stopping:
        stopping.setattr(PhaseProgress, "on_epoch_end", stop_after_one)
        with pytest.raises(Interrupted):
            train(config, run_dir=tmp_path / "streamed")
    resumed = resume(tmp_path / "streamed")
    assert read_summary(resumed.run_dir)["sha256"] == read_summary(whole.run_dir)["sha256"]
    assert "decoded anew" in read_facts(resumed.run_dir).data.provenance


def stop_after_one(progress, epoch, logs=None):
    if epoch == 0:
        raise KeyboardInterrupt


def read_summary(run_dir):
    return json.loads((run_dir / "summary.json").read_text())
