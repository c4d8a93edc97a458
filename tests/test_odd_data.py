"""A walk through odd data sets: of each, what is used, what is left out, and why.

Whatever lies there is either used or counted: the two add up to the files that are there. The
data sets stand in `tools/odd_data.py`, which prints the walk.
"""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tools import odd_data
from tools.odd_data import NPZ, REFUSED, USED, arrays, classes, write
from transfer.data.decode import decode_splits
from transfer.datasets.sources import describe_origin, load_splits, load_undivided
from transfer.errors import InputError


def check(loaded, expected):
    assert loaded.class_names == expected["class_names"]
    counts = {part: split.num_images for part, split in loaded.parts().items()}
    assert counts == {part: count for part, count in expected["parts"].items() if count}
    assert set(loaded.notes) == set(expected["notes"])
    assert Counter(one.reason for one in loaded.passed_over) == expected["passed_over"]
    told = describe_origin(loaded)
    for reason, count in expected["passed_over"].items():
        assert f"{count} {reason}" in told
    return counts


@pytest.mark.parametrize("name", USED)
def test_what_is_used_and_what_is_left_out_add_up(tmp_path, name):
    files, expected = USED[name]
    root = write(tmp_path / "data", files)
    loaded = load_undivided(str(root))
    counts = check(loaded, expected)
    images = sum(counts.values()) if loaded.train.are_files else 0
    assert images + expected["containers"] + len(loaded.passed_over) == len(files)
    there = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert {one.path for one in loaded.passed_over} <= there
    if loaded.train.are_files:
        assert all(
            os.path.isfile(path) for split in loaded.parts().values() for path in split.images
        )
        decoded = decode_splits(load_splits(str(root)), 8)
        assert set(decoded.train.names) <= there
    for split in loaded.parts().values():
        assert split.labels.dtype == np.int64 and split.labels.max() < len(loaded.class_names)


@pytest.mark.parametrize("name", NPZ)
def test_arrays_are_used_as_they_are_meant(tmp_path, name):
    values, expected = NPZ[name]
    path = tmp_path / "data.npz"
    path.write_bytes(arrays(**values))
    loaded = load_undivided(str(path))
    check(loaded, expected)
    assert loaded.train.images.max() == 255 and loaded.train.images.dtype == np.uint8
    if loaded.class_names in (("cat", "dog"), ("dog", "cat")):
        assert loaded.class_names[loaded.train.labels[0]] == "dog"


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path, name):
    files, data, told = REFUSED[name]
    root = write(tmp_path / "data", files)
    with pytest.raises(InputError) as caught:
        load_splits(str(root / data))
    message = str(caught.value)
    assert told in message and "Received" in message and len(message.splitlines()) == 1


def test_emnist_is_turned_upright(tmp_path):
    files, _ = USED["EMNIST"]
    loaded = load_undivided(str(write(tmp_path, files)))
    assert loaded.train.images.shape == (12, 5, 4, 1)
    name = "emnist-letters-train-images-idx3-ubyte"
    stored = np.frombuffer(files[name], np.uint8, offset=16).reshape(12, 4, 5)
    assert (loaded.train.images[..., 0] == stored.transpose(0, 2, 1)).all()
    alone = load_undivided(str(tmp_path / name))
    assert (alone.train.images == loaded.train.images).all() and not alone.passed_over


def test_folders_that_link_in_circles_end(tmp_path):
    root = write(tmp_path / "data", classes(""))
    (root / "cat" / "again").symlink_to(root)
    (root / "dog" / "too").symlink_to(root / "dog")
    loaded = load_undivided(str(root))
    assert loaded.train.num_images == 8
    assert Counter(one.reason for one in loaded.passed_over) == {"links to folders used already": 2}


def test_a_broken_link_is_left_out_and_named(tmp_path):
    root = write(tmp_path / "data", classes("", count=8))
    (root / "cat" / "0.png").unlink()
    (root / "cat" / "0.png").symlink_to("gone.png")
    splits = load_splits(str(root))
    with pytest.raises(InputError, match=r"cat/0.png \(No such file"):
        decode_splits(splits, 8)
    decoded = decode_splits(splits, 8, skip_bad_images=True)
    assert sum(split.num_images for split in decoded.parts().values()) == 15
    assert "left out 1 image file that does not decode: cat/0.png" in decoded.provenance


def test_a_pipe_and_a_socket_are_counted_and_never_opened(tmp_path):
    root = write(tmp_path / "data", classes(""))
    os.mkfifo(root / "cat" / "pipe")
    loaded = load_undivided(str(root))
    assert [one.path for one in loaded.passed_over] == [str(Path("cat/pipe"))]


def test_the_walk_is_printed(capsys):
    odd_data.main()
    told = capsys.readouterr().out
    assert f"{len(USED) + len(NPZ) + len(REFUSED)}. " in told
    assert "passed over 3: 2 hidden files, 1 in __MACOSX" in told and "refused: " in told
