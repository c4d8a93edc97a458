"""Corrupt and hostile data: told in one line, soon, in bounded memory; never a wrong result."""

import gzip
import io
import itertools
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from tools import fuzz_data
from tools.fuzz_data import FORMATS, Format, decode_alone, png_chunk
from transfer.data import decode
from transfer.data.decode import decode_splits
from transfer.data.splits import Split
from transfer.datasets import sources
from transfer.datasets.formats import checks, csv_files, idx, npz
from transfer.datasets.sources import load_splits
from transfer.errors import InputError

FILES = [(name, file) for name, make in FORMATS.items() for file in make().files]
FUZZ = settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MEGABYTE = 1 << 20


def refused(data):
    """Returns the line that refuses a data set, and sees to it that it comes soon."""
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        load_splits(str(data))
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.isprintable() and len(message) < 1000
    assert time.process_time() - start < fuzz_data.MOST_SECONDS
    return message


@pytest.fixture
def little_memory():
    """Fails a test that allocates 32 MiB at once in Python or NumPy."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * MEGABYTE


# --- Every format, damaged --------------------------------------------------------------------


def cut_places(length):
    places = {*np.linspace(0, length - 1, 46).astype(int).tolist()}
    return sorted(places | set(range(max(0, length - 4), length)))


def flip_bytes(content, count, dice):
    changed = bytearray(content)
    for place in dice.sample(range(len(content)), min(count, len(content))):
        changed[place] ^= dice.randrange(1, 256)
    return bytes(changed)


@pytest.mark.parametrize(("name", "file"), FILES)
def test_fifty_truncations_are_told(tmp_path, name, file, capfd):
    data = FORMATS[name]()
    data.write(tmp_path)
    good, content = data.read(tmp_path, file), data.files[file]
    for place in cut_places(len(content)):
        found = fuzz_data.check(data, tmp_path, file, content[:place])
        if isinstance(found, str) or fuzz_data.are_same(found, good):
            continue
        # A CSV or TFRecord cut after a row is a shorter one: its rows, at least, are right.
        assert name == "tfrecord" or (name == "csv" and content[:place].endswith(b"\n"))
        assert all((a == b[: len(a)]).all() for a, b in zip(found, good, strict=True))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "file"), FILES)
def test_two_hundred_flipped_bytes_are_told_or_well_formed(tmp_path, name, file, capfd):
    data, dice = FORMATS[name](), random.Random(0)
    data.write(tmp_path)
    good, content = data.read(tmp_path, file), data.files[file]
    damages = [flip_bytes(content, 1, dice) for _ in range(200)]
    for damaged in (*damages, flip_bytes(content, 200, dice)):
        found = fuzz_data.check(data, tmp_path, file, damaged)
        if data.is_checked:
            assert isinstance(found, str) or fuzz_data.are_same(found, good)
    assert capfd.readouterr() == ("", "")


EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12)), min_size=1, max_size=6
)


@FUZZ
@given(chosen=st.sampled_from(FILES), edits=EDITS)
def test_any_edit_is_told_or_well_formed(tmp_path, chosen, edits):
    name, file = chosen
    folder = tmp_path / name
    data = FORMATS[name]()
    folder.mkdir(exist_ok=True)
    data.write(folder)
    good, content = data.read(folder, file), data.files[file]
    for where, count, instead in edits:
        place = round(where * len(content))
        content = content[:place] + instead + content[place + count :]
    found = fuzz_data.check(data, folder, file, content)
    assert isinstance(found, str) or not data.is_checked or fuzz_data.are_same(found, good)


def test_what_the_file_cannot_tell_its_checksum_does(tmp_path, monkeypatch):
    data = FORMATS["idx"]()
    data.write(tmp_path)
    digests = idx.read_idx_folder(tmp_path)[2]
    for stem, digest in digests.items():
        monkeypatch.setitem(idx.FASHION_MNIST_SHA256, stem, digest)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    monkeypatch.setattr(idx, "CLASS_NAMES", ("a", "b"))
    assert load_splits("fashion-mnist").name == "fashion-mnist"
    path = tmp_path / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "another SHA-256 for train-images-idx3-ubyte" in refused("fashion-mnist")


# --- IDX --------------------------------------------------------------------------------------

IMAGES = "train-images-idx3-ubyte"


def write_idx(folder, content, suffix):
    # The good data set, but for its training images.
    for name, good in FORMATS["idx"]().files.items():
        (folder / name).write_bytes(good)
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}{suffix}").write_bytes(content)


def make_header(*shape):
    return struct.pack(f">{len(shape) + 1}I", 0x0800 + len(shape), *shape)


def deflate_zeros(header, num_bytes):
    # The .gz of a header and zeros: a thousandth of its content.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [packer.compress(header)]
    parts += [packer.compress(bytes(MEGABYTE)) for _ in range(num_bytes // MEGABYTE)]
    return b"".join(parts) + packer.flush()


def test_gz_is_not_expanded_past_what_its_header_promises(tmp_path, little_memory):
    write_idx(tmp_path, deflate_zeros(make_header(20, 4, 4), 100 * MEGABYTE), ".gz")
    message = refused(tmp_path)
    assert f"{IMAGES}.gz should have 320 bytes" in message and "321 or more" in message


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (400, 1000, 1000)])
def test_gz_that_promises_more_than_it_can_hold_is_not_expanded(tmp_path, shape, little_memory):
    write_idx(tmp_path, gzip.compress(make_header(*shape) + bytes(1000)), ".gz")
    assert "promise more than 200 times its own size" in refused(tmp_path)


def test_bomb_that_keeps_its_promise_is_not_expanded(tmp_path, monkeypatch, little_memory):
    monkeypatch.setattr(checks, "_SMALL_BYTES", 32 * MEGABYTE)
    content = deflate_zeros(make_header(64, 1024, 1024), 64 * MEGABYTE)
    write_idx(tmp_path, content, ".gz")
    assert f"a file of {len(content):,} bytes that promises 67,108,864" in refused(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="files with holes")
def test_idx_larger_than_the_memory_is_not_read(tmp_path, little_memory):
    write_idx(tmp_path, make_header(4096, 32768, 32768), "")
    os.truncate(tmp_path / IMAGES, 16 + 4096 * 32768 * 32768)
    assert "should fit into the memory of" in refused(tmp_path)


def test_place_of_damage_in_a_gz_is_told(tmp_path):
    content = FORMATS["idx-gz"]().files[f"{IMAGES}.gz"]
    write_idx(tmp_path, content[:200], ".gz")
    assert f"{IMAGES}.gz should be a whole .gz file" in refused(tmp_path)
    assert "(in its first 200 bytes); fetch it again" in refused(tmp_path)


# --- CSV --------------------------------------------------------------------------------------

CSV = FORMATS["csv"]().files["d.csv"]


def write_csv(folder, content):
    path = folder / "d.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_csv_cut_within_its_last_number_is_told(tmp_path, cut):
    assert CSV.endswith(b"5\n") and CSV[-4:-2].isdigit()  # "...25": 2 would do as well
    message = refused(write_csv(tmp_path, CSV[:-cut]))
    assert "d.csv, row 21: should end with a line break" in message


@pytest.mark.parametrize("last", [b" ", b"\r\n", b"\n \n  "])
def test_csv_may_end_with_blanks(tmp_path, last):
    loaded = sources._load_path(str(write_csv(tmp_path, CSV + last)))
    assert loaded.train.num_images == 20


@pytest.mark.skipif(sys.platform == "win32", reason="files with holes")
@pytest.mark.parametrize("rows", [0, 20])
def test_csv_with_a_line_without_end_is_not_read(tmp_path, rows, little_memory):
    path = write_csv(tmp_path, b"".join(CSV.splitlines(keepends=True)[: 1 + rows]))
    os.truncate(path, 1 << 40)
    assert f"row {rows + 2}: should end with a line break within 1,568 bytes" in refused(path)


@pytest.mark.parametrize("line", [b",", b"0,", b" ", b"1"])
def test_csv_with_a_long_line_is_refused(tmp_path, line, little_memory):
    assert "row 22: " in refused(write_csv(tmp_path, CSV + line * MEGABYTE))


@pytest.mark.parametrize("line", [b",", b"x,", b"1", b" "])
def test_csv_with_a_long_header_is_refused(tmp_path, line):
    path = write_csv(tmp_path, b"label," + line * (8 * MEGABYTE))
    tracemalloc.start()
    message = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ", row " in message and peak < 512 * MEGABYTE


def test_csv_of_blank_lines_is_told(tmp_path):
    path = write_csv(tmp_path, CSV.splitlines(keepends=True)[0] + b"\n" * 1000)
    assert "only the header" in refused(path)


def test_long_names_of_columns_are_not_repeated(tmp_path):
    path = write_csv(tmp_path, b"label," + b"x" * 100_000 + b"\n0,y\n")
    assert f"row 2, column {'x' * 40}: there" in refused(path)


# --- NPZ --------------------------------------------------------------------------------------

ARRAYS = dict(
    zip(("x_train", "y_train", "x_test", "y_test"), map(np.asarray, fuzz_data._ARRAYS), strict=True)
)


def make_npy(descr, shape, content=b"", version=(1, 0)):
    """Returns the bytes of an array, whatever its header says."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + content


def write_npz(path, compression=zipfile.ZIP_DEFLATED, **members):
    """Writes a good .npz in which some members are these bytes."""
    buffers = {key: io.BytesIO() for key in ARRAYS}
    for key, array in ARRAYS.items():
        np.save(buffers[key], array)
    contents = {key: buffer.getvalue() for key, buffer in buffers.items()} | members
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, content in contents.items():
            archive.writestr(f"{key}.npy", content)
    return path


class Trap:
    """Unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("key", ["x_train", "y_train", "y_test", "class_names", "other"])
@pytest.mark.parametrize("dressed", ["array", "fields", "raw"])
def test_pickles_are_refused_before_anything_runs(tmp_path, key, dressed):
    trace = tmp_path / "trace"
    pickled = pickle.dumps([Trap(str(trace))] * 20)
    content = {
        "array": make_npy("|O", (20,), pickled),
        "fields": make_npy([("a", "|O")], (20,), pickled),
        "raw": pickled,
    }[dressed]
    path = write_npz(tmp_path / "d.npz", **{key: content})
    if key == "other":
        assert load_splits(str(path)).test.num_images == 6
    else:
        assert f"d.npz, {key}: should be a whole .npz of plain arrays" in refused(path)
    assert not trace.exists()
    pickle.loads(pickled)
    assert trace.exists()  # the trap works


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (make_npy("|u1", (10**12, 28, 28)), "fewer bytes than the array's shape"),
        (make_npy("|u1", (2**62, 4, 4), bytes(16)), "fewer bytes"),
        (make_npy("|u1", (-20, -4, 4), bytes(320)), "dimension"),
        (make_npy("<U0", (10**9,)), "fewer bytes"),
        (make_npy("<f8", (20, 4, 4), bytes(320)), "fewer bytes"),
        (make_npy("|u1", (19, 4, 4), bytes(320)), "more bytes"),
        (make_npy("|u1", (20, 4, 4), bytes(320), (3, 0)), "version (3, 0)"),
        (make_npy("|u1", (20, 4, 4), bytes(320), (9, 9)), "version"),
        (make_npy("|u1", (20, 4, 4), b"", (2, 0))[:8] + b"\xff" * 4, "EOF"),
        (make_npy("|V16", (20,), bytes(320)), "uint8 images"),
        (make_npy("|u1", (20, 4, 4), bytes(320)).replace(b"{", b"[" * 900), "header"),
        (b"", "magic"),
    ],
    ids=lambda value: value if isinstance(value, str) else "npy",
)
def test_npz_headers_that_lie_are_told(tmp_path, content, told, little_memory):
    message = refused(write_npz(tmp_path / "d.npz", x_train=content))
    assert told in message.lower() or told in message
    assert str(tmp_path / "d.npz, x_train") in message


def test_npz_that_expands_hugely_is_refused_before(tmp_path, monkeypatch, little_memory):
    monkeypatch.setattr(checks, "_SMALL_BYTES", MEGABYTE)
    bomb = make_npy("|u1", (8, 1024, 1024), bytes(8 * MEGABYTE))
    path = write_npz(tmp_path / "d.npz", x_train=bomb)
    assert "promise more than 200 times its own size" in refused(path)
    path = write_npz(tmp_path / "d.npz", other=bomb)  # never decompressed
    assert load_splits(str(path)).train.num_images == 18


def test_npz_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    path = write_npz(tmp_path / "d.npz", zipfile.ZIP_STORED)
    monkeypatch.setattr(checks, "usable_memory", lambda: 500)
    assert "should fit into the memory" in refused(path)


def test_labels_are_counted_before_they_are_converted(tmp_path, little_memory):
    labels = make_npy("|u1", (8 * MEGABYTE,), bytes(8 * MEGABYTE))  # int64 would take 64 MiB
    assert "20 images, 8,388,608 labels" in refused(write_npz(tmp_path / "d.npz", y_train=labels))


def test_names_out_of_the_folder_are_never_written(tmp_path):
    (tmp_path / "data").mkdir()
    names = {"../out": b"x", str(tmp_path / "absolute"): b"x", "a/b": b"x", "c\\d": b"x"}
    path = write_npz(tmp_path / "data" / "d.npz", **names)
    assert load_splits(str(path)).test.num_images == 6
    assert [p.name for p in tmp_path.rglob("*")] == ["data", "d.npz"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_ambiguous_or_overfull_npz_is_refused(tmp_path):
    path = write_npz(tmp_path / "d.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", b"another")
    assert "'x_train' twice" in refused(path)
    path = write_npz(tmp_path / "d.npz", **{f"a{i}": b"" for i in range(1000)})
    assert "thousands of members" in refused(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path, compression):
    path = write_npz(tmp_path / "d.npz", compression)
    assert "x_train: should be" in refused(path) and "NumPy does not write" in refused(path)


def test_a_lost_or_renamed_member_is_told(tmp_path):
    names = io.BytesIO()
    np.save(names, np.array(["cat", "dog"]))
    good = write_npz(tmp_path / "d.npz", class_names=names.getvalue()).read_bytes()
    assert sources._load_path(str(tmp_path / "d.npz")).class_names == ("cat", "dog")
    place = good.rindex(b"class_names.npy")
    (tmp_path / "d.npz").write_bytes(good[:place] + b"C" + good[place + 1 :])
    assert "differ" in refused(tmp_path / "d.npz")
    place = good.rindex(b"y_test.npy") - 46 + 32  # the length of a comment, which hides the next
    (tmp_path / "d.npz").write_bytes(good[:place] + b"\xff" + good[place + 1 :])
    assert "4 members instead of 5" in refused(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["cat\x1b[2J", "dog"], "control characters"),
        (["cat\n", "dog"], "control characters"),
        (["", "dog"], "control characters"),
        (["x" * 256, "dog"], "255 characters"),
        ([str(i) for i in range(21)], "one for each image"),
    ],
)
def test_class_names_that_cannot_be_shown_are_refused(tmp_path, names, told):
    np.savez(tmp_path / "d.npz", **ARRAYS, class_names=np.array(names))
    assert told in refused(tmp_path / "d.npz")


def test_class_names_of_any_language_are_taken(tmp_path):
    names = ("Füße", "\u732b\u3000\u72ac")
    np.savez(tmp_path / "d.npz", **ARRAYS, class_names=np.array(names))
    assert load_splits(str(tmp_path / "d.npz")).class_names == names


# --- Images -----------------------------------------------------------------------------------


def save(image, file_format, **options):
    return fuzz_data._save(image, file_format, **options)


def make_split(folder, *contents):
    paths = [folder / f"{index}.png" for index in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    names = np.array([str(path) for path in paths], dtype=object)
    return Split(names, np.zeros(len(paths), np.int64), str(folder))


def reason(folder, content):
    with pytest.raises(InputError) as caught:
        decode_alone(make_split(folder, content), 96)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value).split("0.png (")[1].split("). Mend")[0]


def make_png(width, height, depth=8, kind=0, rows=None, more=b""):
    """Returns a white PNG: of `kind` gray, by far smaller than its pixels."""
    row = b"\0" + b"\xff" * -(-width * depth * {0: 1, 2: 3, 6: 4}[kind] // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(height if rows is None else rows))
    header = struct.pack(">2I5B", width, height, depth, kind, 0, 0, 0)
    parts = png_chunk(b"IHDR", header) + more + png_chunk(b"IDAT", packed + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + parts + png_chunk(b"IEND", b"")


SIDE = 60_000
SMALL_BMP = save(Image.new("RGB", (4, 4)), "BMP")
SMALL_GIF = save(Image.new("P", (4, 4)), "GIF")
BOMBS = {
    "PNG": make_png(SIDE, SIDE, depth=1, rows=1),
    "BMP": SMALL_BMP[:18] + struct.pack("<2i", SIDE, SIDE) + SMALL_BMP[26:],
    "GIF": SMALL_GIF[:6] + struct.pack("<2H", SIDE, SIDE) + SMALL_GIF[10:],
    "JPEG": save(Image.new("L", (8, 8)), "JPEG").replace(b"\0\x08\0\x08", b"\xea\x60\xea\x60"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_image_of_too_many_pixels_is_refused(tmp_path, name):
    assert reason(tmp_path, BOMBS[name]) == "too many pixels"


@pytest.mark.parametrize("name", ["iCCP", "zTXt", "iTXt"])
def test_bomb_beside_the_pixels_is_refused(tmp_path, name):
    packed = zlib.compress(bytes(2 * MEGABYTE))
    content = {"iCCP": b"a\0\0", "zTXt": b"a\0\0", "iTXt": b"a\0\1\0\0\0"}[name] + packed
    told = reason(tmp_path, make_png(4, 4, more=png_chunk(name.encode(), content)))
    assert "too large" in told


def test_thousands_of_scans_are_refused(tmp_path):
    content = save(Image.new("L", (64, 64), 9), "JPEG", progressive=True)
    scan = content[content.rindex(b"\xff\xda") : -2]
    assert decode_alone(make_split(tmp_path, content[:-2] + 50 * scan + content[-2:]), 96)
    assert reason(tmp_path, content[:-2] + 5000 * scan + content[-2:]) == "more than 100 scans"


@pytest.mark.parametrize("filler", [b"", b"\0", b"\xff"])
def test_jpeg_whose_end_is_lost_is_told(tmp_path, filler):
    # Zeros are what a broken download or disk leaves; Pillow takes them for pixels.
    thumbnail = save(Image.new("RGB", (8, 8)), "JPEG")  # has an end of its own
    picture = Image.effect_noise((200, 200), 50)
    content = save(picture, "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert decode_alone(make_split(tmp_path, content), 96).num_images == 1
    half = len(content) // 2
    told = reason(tmp_path, content[:half] + filler * (len(content) - half))
    assert told == "the end is missing"


def test_phones_of_several_pictures_in_a_file_are_read_alike(tmp_path):
    pictures = [Image.effect_noise((200, 200), 50), Image.new("L", (200, 200), 9)]
    content = save(pictures[0], "MPO", save_all=True, append_images=pictures[1:])
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
        assert image.format == "MPO"
    alone = save(pictures[0], "JPEG")
    images = decode_alone(make_split(tmp_path, content, alone), 200).images
    assert (images[0] == images[1]).all()
    half = len(content) // 2
    assert reason(tmp_path, content[:half] + bytes(len(content) - half)) == "the end is missing"


def test_trailing_bytes_are_no_damage(tmp_path):
    # Phones append previews and films.
    content = save(Image.new("L", (40, 40), 99), "JPEG")
    images = decode_alone(make_split(tmp_path, content, content + b"\xff\xda\xff\xd8more"), 96)
    assert (images.images == images.images[0]).all()


@pytest.mark.parametrize("size", [(SIDE, 1), (1, SIDE)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF"])
def test_extremely_long_images_are_answered(tmp_path, size, file_format):
    content = save(Image.new("L", size, 200), file_format)
    images = decode_alone(make_split(tmp_path, content), 96).images
    assert images.shape[:3] == (1, 96, 96) and np.abs(images.astype(int) - 200).max() <= 1


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF"])
def test_animations_give_their_first_frame(tmp_path, file_format):
    frames = [Image.new("L", (8, 8), value).convert("RGB") for value in (255, 0, 128)]
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = save(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    assert (decode_alone(make_split(tmp_path, content), 96).images == 255).all()


@pytest.mark.parametrize("kind", [0, 2, 6])
def test_sixteen_bits_of_every_kind_are_answered(tmp_path, kind):
    images = decode_alone(make_split(tmp_path, make_png(8, 4, 16, kind)), 96).images
    assert images.shape == (1, 4, 8, 1 if kind == 0 else 3) and (images == 255).all()


def make_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("evil.html", "<script>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "tail", [make_zip(), b"<script>alert(1)</script>", SMALL_GIF], ids=("zip", "html", "gif")
)
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF"])
def test_polyglots_are_the_image_that_they_begin_with(tmp_path, file_format, tail):
    content = save(Image.new("L", (8, 8), 99), file_format)
    images = decode_alone(make_split(tmp_path, content, content + tail), 96).images
    assert (images[0] == images[1]).all()


@pytest.mark.parametrize(
    "content",
    [make_zip(), b"%PDF-1.7", b"\x7fELF", b"<svg/>", b"GIF89a=1;alert(1)//", b"\xff\xd8"],
    ids=("zip", "pdf", "elf", "svg", "script", "jpeg"),
)
def test_what_is_no_image_is_refused(tmp_path, content):
    assert (
        reason(tmp_path, content)
        == "not a PNG, JPEG, WebP, GIF, BMP, TIFF, PPM, AVIF or HEIC image"
    )


def test_damaged_images_are_never_filled_up():
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert PngImagePlugin.MAX_TEXT_CHUNK <= MEGABYTE
    assert Image.MAX_IMAGE_PIXELS < 100_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="files with holes")
def test_huge_file_is_refused_unread(tmp_path, little_memory):
    split = make_split(tmp_path, save(Image.new("L", (4, 4)), "WEBP"))
    os.truncate(split.images[0], 1 << 40)
    with pytest.raises(InputError, match="too many bytes"):
        decode_alone(split, 96)


def test_large_images_are_decoded_one_at_a_time_by_one_thread(tmp_path, monkeypatch):
    at_work, threads, inner = itertools.count(), set(), decode._finish
    monkeypatch.setattr(decode, "_LARGE_PIXELS", 100)
    monkeypatch.setattr(decode, "_BATCH", 1)
    monkeypatch.setattr(decode.os, "cpu_count", lambda: 8)

    def spy(image, *arguments):
        if image.width * image.height > 100:
            threads.add(threading.get_ident())
        next(at_work)
        return inner(image, *arguments)

    monkeypatch.setattr(decode, "_finish", spy)
    noise = [Image.effect_noise((side, side), 50) for side in [4, 20] * 10]
    images = decode_alone(make_split(tmp_path, *(save(x, "PNG") for x in noise)), 20).images
    assert len(threads) == 1 and next(at_work) == 20
    assert all((images[i, ..., 0] == np.asarray(noise[i])).all() for i in range(1, 20, 2))


PEAK = """
import json, os, sys
import numpy as np
from transfer.data import decode
from transfer.data.splits import Split
os.cpu_count = lambda: 8
decode._BATCH = 1
folder = sys.argv[1]
paths = np.array([os.path.join(folder, name) for name in sorted(os.listdir(folder))], dtype=object)
split = Split(paths, np.zeros(len(paths), np.int64), folder)
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith("VmHWM"))
before = peak()
images = decode.decode_split(split, decode.measure_geometry([split], 96)).images
print(json.dumps([before, peak(), images.shape]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_memory_of_eight_large_images_is_that_of_one(tmp_path):
    content = make_png(6000, 6000, kind=2)  # 108 MB of pixels in 0.5 MB
    make_split(tmp_path, *[content] * 8)
    root = str(Path(decode.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    before, after, shape = json.loads(run.stdout)
    assert shape == [8, 96, 96, 3]
    assert after - before < 400  # MB; all at once: more than 1,000


# --- Folders and files that are none ------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(4):
            image = Image.new("L", (8, 8), 200 + 10 * index)
            image.save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def decode_folder(folder):
    return decode_splits(load_splits(str(folder)), 96)


def refused_folder(folder):
    with pytest.raises(InputError) as caught:
        decode_folder(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_folders_named_like_images_are_no_images(photos):
    (photos / "cat" / "folder.png").mkdir()
    splits = decode_folder(photos)
    assert sum(s.num_images for s in (splits.train, splits.validation, splits.test)) == 8


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_pipes_are_never_opened(photos, tmp_path):
    os.mkfifo(photos / "cat" / "pipe.png")
    assert "cat/pipe.png (not a regular file)" in refused_folder(photos)
    for name in ("d.npz", "d.csv", IMAGES):
        os.mkfifo(tmp_path / name)
    (tmp_path / "idx").mkdir()
    FORMATS["idx"]().write(tmp_path / "idx")
    (tmp_path / "idx" / IMAGES).unlink()
    os.mkfifo(tmp_path / "idx" / f"{IMAGES}.gz")
    for path in (tmp_path / "d.npz", tmp_path / "d.csv", tmp_path / "idx"):
        assert "should be a file. Received: a pipe or a device" in refused(path)


@pytest.mark.parametrize("name", ["d.npz", f"{IMAGES}", f"{IMAGES}.gz"])
def test_folders_named_like_data_files_are_told(tmp_path, name):
    (tmp_path / name).mkdir()
    if name == "d.npz":
        assert f"{name} should be a file. Received: a folder" in refused(tmp_path / name)
    else:
        assert f"{name} should hold the images of a class" in refused(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_loops_of_links_end(photos):
    (photos / "cat" / "round.png").symlink_to("round.png")
    (photos / "cat" / "gone.png").symlink_to("nowhere.png")
    (photos / "cat" / "up").symlink_to(photos)
    message = refused_folder(photos)
    assert "cat/round.png (Too many levels of symbolic links)" in message
    assert "cat/gone.png (No such file or directory)" in message and "2 that do not" in message
    (photos / "root").symlink_to(photos)
    (photos / "train").symlink_to(photos)
    assert "2 that do not" in refused_folder(photos)
    for name in ("round.png", "gone.png"):
        (photos / "cat" / name).unlink()
    assert "passed over 3: 3 links to folders used already" in decode_folder(photos).provenance


@pytest.mark.parametrize(
    ("name", "file"), [("npz", "stored.npz"), ("csv", "d.csv"), ("idx", IMAGES)]
)
def test_files_that_may_not_be_read_are_told(tmp_path, name, file, monkeypatch):
    # Not by chmod: a superuser may read everything.
    def forbidden(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    for module in (csv_files, idx, npz):
        monkeypatch.setattr(module, "open", forbidden, raising=False)
    FORMATS[name]().write(tmp_path)
    path = tmp_path / file
    assert f"{path} cannot be read: Permission denied" in refused(
        tmp_path if name == "idx" else path
    )


def test_images_that_may_not_be_read_are_told(photos, monkeypatch):
    def forbidden(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(decode.Image, "open", forbidden)
    assert "cat/0.png (Permission denied)" in refused_folder(photos)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of any bytes")
@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb", b"\x1b[31m"])
def test_class_folders_that_cannot_be_shown_are_told(photos, name):
    os.rename(photos / "cat", os.path.join(os.fsencode(photos), name))
    assert "names of classes should be texts without control characters" in refused(photos)


# --- The command that looks for more --------------------------------------------------------------


def test_random_engine_counts_what_it_tried(capsys, tmp_path):
    arguments = ["--format", "csv", "--seconds", "0.3", "--engine", "random"]
    assert fuzz_data.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    line = capsys.readouterr().out
    assert line.startswith("csv: ") and line.endswith("nothing found.\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["traceback", "wrong"])
def test_random_engine_keeps_what_it_finds(capsys, tmp_path, monkeypatch, fault):
    good = FORMATS["npz"]()

    def read(folder, name):
        if fault == "traceback" and (folder / name).read_bytes() != good.files[name]:
            raise ZeroDivisionError
        return [np.frombuffer((folder / name).read_bytes(), np.uint8).reshape(1, -1, 1, 1)]

    monkeypatch.setitem(FORMATS, "npz", lambda: Format(good.files, read, True))
    arguments = ["--format", "npz", "--seconds", "9", "--engine", "random"]
    assert fuzz_data.main([*arguments, "--out", str(tmp_path / "out")]) == 1
    (kept,) = (tmp_path / "out").iterdir()
    assert f"found: {kept}" in capsys.readouterr().out and kept.name.endswith(".npz")


def test_missing_atheris_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "atheris", None)
    with pytest.raises(SystemExit, match="^--engine atheris needs atheris: pip install atheris"):
        fuzz_data.main(["--format", "csv", "--seconds", "1"])
