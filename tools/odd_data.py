"""Odd data sets, as people really have them, and what is expected of each.

`python -m tools.odd_data` makes them one by one and prints of each how many files lie there, what
was used of them, what was left out, and why. `tests/test_odd_data.py` runs over the same tables.
"""

import gzip
import io
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from transfer import console
from transfer.datasets.sources import describe_origin, load_splits, load_undivided
from transfer.errors import InputError


def picture(file_format="PNG", seed=0):
    pixels = np.random.RandomState(seed).randint(0, 256, (6, 6, 3), np.uint8)
    pixels[0] = 250
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


PNG, JPEG, TIFF = picture(), picture("JPEG"), picture("TIFF")
TEXT = b"not a picture\n"


def names(folder, count=4, suffix=".png"):
    return [f"{folder}/{index}{suffix}" for index in range(count)]


def classes(*folders, count=4, suffix=".png", content=PNG):
    """Returns files of the classes cat and dog within each folder."""
    return {
        name: content
        for folder in folders
        for kind in ("cat", "dog")
        for name in names(f"{folder}{kind}", count, suffix)
    }


def idx(array):
    return struct.pack(f">{array.ndim + 1}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def idx_files(pattern, parts=("train", "t10k"), first=0, pack=bytes):
    """Returns IDX files of 3 classes, 12 images a part; images as tall as 4 and as wide as 5."""
    files = {}
    for part in parts:
        images = np.random.RandomState(1).randint(0, 256, (12, 4, 5), np.uint8)
        labels = (np.arange(12) % 3 + first).astype(np.uint8)
        for kind, number, array in (("images", 3, images), ("labels", 1, labels)):
            files[pattern.format(part=part, kind=kind, number=number)] = pack(idx(array))
    return files


def pixels_csv(labels=("0", "1"), count=8, header="label,a,b,c,d", low=0, high=255):
    rows = [f"{labels[i % len(labels)]},{low},{high},{low},{i % 2 and high}" for i in range(count)]
    return ("\n".join([header, *rows]) + "\n").encode()


def table(header, *rows):
    return ("\n".join([header, *rows]) + "\n").encode()


def arrays(**values):
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    return buffer.getvalue()


IMAGES = np.random.RandomState(0).randint(0, 256, (12, 4, 4), np.uint8)
IMAGES[:, 0, 0] = 255
LABELS = np.arange(12) % 2
FLAT = {name: PNG for name in (*names("train", 8), *names("test1", 3))}
TABLE = [f"{index}.png,{'cat' if index % 2 else 'dog'}" for index in range(8)]


def used(*names, train=8, test=None, validation=None, notes=(), passed_over=None, containers=0):
    return {
        "class_names": names or ("cat", "dog"),
        "parts": {"train": train, "validation": validation, "test": test},
        "notes": notes,
        "passed_over": passed_over or {},
        "containers": containers,
    }


# A data set by its files, what --data names in it, and what is expected of it.
USED = {
    "other suffixes": (
        classes("", count=1)
        | classes("", count=1, suffix=".jfif", content=JPEG)
        | classes("", count=1, suffix=".TIFF", content=TIFF)
        | classes("", count=1, suffix=".ppm", content=picture("PPM"))
        | classes("", count=1, suffix=".avif", content=picture("AVIF")),
        used(train=10),
    ),
    "wrong and missing suffixes": (
        classes("", count=2, suffix=".dat", content=JPEG) | classes("", suffix="", count=2),
        used(),
    ),
    "sub-folders of a class": (
        classes("") | {"cat/more/deep/x.png": PNG, "dog/2020/y.jpg": JPEG},
        used(train=10, notes=("2 images in folders within class folders, as cat/more/deep",)),
    ),
    "folds in place of classes": (
        classes("fold1/") | classes("fold2/"),
        used(
            "fold1",
            "fold2",
            train=16,
            notes=("16 images in folders within class folders, as fold1/cat",),
        ),
    ),
    "notes among the images": (
        classes("") | {"cat/notes.txt": TEXT, "dog/labels.xml": TEXT, "readme.md": TEXT},
        used(passed_over={".txt files": 1, ".xml files": 1, ".md files": 1}),
    ),
    "images beside the class folders": (
        classes("") | {"cover.png": PNG, "more": JPEG},
        used(passed_over={"images outside of class folders": 2}),
    ),
    "what a Mac leaves": (
        classes("") | {"__MACOSX/cat/._0.png": TEXT, ".DS_Store": TEXT, "cat/._0.png": TEXT},
        used(passed_over={"in __MACOSX": 1, "hidden files": 2}),
    ),
    "what Windows and Synology leave": (
        classes("")
        | {"cat/Thumbs.db": TEXT, "dog/desktop.ini": TEXT, "cat/@eaDir/0.png/T.jpg": JPEG}
        | {"@eaDir/x.jpg": JPEG, "$RECYCLE.BIN/old.png": PNG, "lost+found/x": TEXT},
        used(
            passed_over={
                "Thumbs.db": 1,
                "desktop.ini": 1,
                "in @eaDir": 2,
                "in $RECYCLE.BIN": 1,
                "in lost+found": 1,
            }
        ),
    ),
    "notebooks' and Python's folders": (
        classes("") | {".ipynb_checkpoints/x.png": PNG, "cat/__pycache__/y.pyc": TEXT},
        used(passed_over={"in .ipynb_checkpoints": 1, "in __pycache__": 1}),
    ),
    "unfinished downloads and backups": (
        classes("") | {"cat/9.jpg.part": JPEG, "cat/9.jpg~": JPEG, "dog/9.png.bak": PNG},
        used(passed_over={"unfinished or backup copies": 3}),
    ),
    "camera raw": (
        classes("") | {"cat/9.nef": TIFF, "dog/9.CR2": TIFF},
        used(passed_over={".nef files": 1, ".cr2 files": 1}),
    ),
    "formats that are not read": (
        classes("")
        | {"cat/a.svg": b"<svg/>", "dog/b.psd": b"8BPS\0\1", "dog/c.ico": picture("ICO")},
        used(passed_over={".svg files": 1, ".psd files": 1, ".ico files": 1}),
    ),
    "test1, labelled": (
        classes("train/") | classes("test1/", count=1),
        used(test=2, notes=("the folder test1 is taken for test",)),
    ),
    "eval": (
        classes("train/") | classes("eval/", count=1),
        used(test=2, notes=("the folder eval is taken for test",)),
    ),
    "eval beside test": (
        classes("train/") | classes("eval/", count=1) | classes("test/", count=2),
        used(test=4, validation=2, notes=("the folder eval is taken for validation",)),
    ),
    "training, dev and testing": (
        classes("Training/") | classes("dev/", count=1) | classes("testing/", count=2),
        used(
            test=4,
            validation=2,
            notes=tuple(
                f"the folder {name} is taken for {part}"
                for name, part in (
                    ("Training", "train"),
                    ("dev", "validation"),
                    ("testing", "test"),
                )
            ),
        ),
    ),
    "training_set and test_set": (
        classes("training_set/training_set/") | classes("test_set/test_set/", count=1),
        used(
            test=2,
            notes=(
                "the folder test_set is taken for test",
                "the folder training_set is taken for train",
                "from its folder training_set",
                "from its folder test_set",
            ),
        ),
    ),
    "test1 without classes": (
        classes("train/") | {name: PNG for name in names("test1", 3)},
        used(passed_over={"in test1, which has no class folders": 3}),
    ),
    "folders beside train": (
        classes("train/")
        | {name: PNG for name in names("extra/cat", 3)}
        | {"a/b.txt": TEXT}
        | classes("test/", count=1),
        used(test=2, passed_over={"in extra": 3, "in a": 1}),
    ),
    "all in one folder of an archive": (
        classes("pets-v2/") | {"__MACOSX/._pets-v2": TEXT, "LICENSE": TEXT},
        used(
            notes=("from its folder pets-v2",),
            passed_over={"in __MACOSX": 1, "files that are no images": 1},
        ),
    ),
    "train within an archive's folder": (
        classes("pets/train/") | classes("pets/valid/", count=1),
        used(validation=2, notes=("from its folder pets",)),
    ),
    "a class called train": (
        {name: PNG for name in (*names("bus"), *names("train"))},
        used("bus", "train", notes=("the folder train is taken for a class",)),
    ),
    "a CSV of paths": (
        {f"images/{name}": PNG for name in names("img", 8)}
        | {"labels.csv": table("path,label", *[f"images/img/{row}" for row in TABLE])},
        used(containers=1),
    ),
    "Kaggle's ids without suffix": (
        FLAT | {"labels.csv": table("id,breed", *[f"{i},{'ab'[i % 2]}" for i in range(8)])},
        used("a", "b", containers=1, passed_over={"images that no row names": 3}),
    ),
    "train.csv and test.csv of paths, no labels in test": (
        FLAT
        | {"train.csv": table("image_id,label", *TABLE)}
        | {"test.csv": table("image_id", "0.png")},
        used(
            containers=1,
            passed_over={"test.csv, which has no labels": 1, "images that no row names": 3},
        ),
    ),
    "a table with a column for the part": (
        {name: PNG for name in names("img", 6)}
        | {
            "birds.csv": table(
                "filepaths;labels;data set",
                *[f"img/{i}.png;{'ab'[i % 2]};{'train' if i < 4 else 'test'}" for i in range(6)],
            )
        },
        used("a", "b", train=4, test=2, containers=1),
    ),
    "one-hot columns": (
        dict.fromkeys(names("img", 8), PNG)
        | {"train.csv": table("id,rust,scab", *[f"{i},{i % 2},{1 - i % 2}" for i in range(8)])},
        used("rust", "scab", containers=1, notes=("one-hot labels",)),
    ),
    "rows that stand there twice": (
        {name: PNG for name in names("img", 8)}
        | {"labels.csv": table("file,class", *TABLE, TABLE[0], TABLE[3])},
        used(containers=1, notes=("2 rows stand there twice",)),
    ),
    "Train.csv and Test.csv": (
        {"Train.csv": pixels_csv(), "Test.csv": pixels_csv(count=4)},
        used("0", "1", test=4, containers=2),
    ),
    "latest.csv and contest.csv are no tests": (
        {"train.csv": pixels_csv(), "latest.csv": pixels_csv(), "contest.csv": pixels_csv()},
        used("0", "1", containers=1, passed_over={".csv files": 2}),
    ),
    "digit-recognizer": (
        {
            "train.csv": pixels_csv(header="label,pixel0,pixel1,pixel2,pixel3"),
            "test.csv": table("pixel0,pixel1,pixel2,pixel3", "0,1,2,3"),
            "sample_submission.csv": table("ImageId,Label", "1,0"),
        },
        used(
            "0",
            "1",
            containers=1,
            passed_over={"test.csv, which has no labels": 1, ".csv files": 1},
        ),
    ),
    "pixels with labels in words": (
        {"mnist-train.csv": pixels_csv(("cat", '"dog"')), "mnist-val.csv": pixels_csv(("dog",))},
        used(validation=8, containers=2),
    ),
    "a label that no image has": (
        {"sign_train.csv": pixels_csv(("0", "1", "3"), count=9)},
        used(
            "0",
            "1",
            "3",
            train=9,
            containers=1,
            notes=("labels 0 to 3, 3 in use, numbered from 0",),
        ),
    ),
    "pixels of 0 and 1": (
        {"train.csv": pixels_csv(high=1)},
        used("0", "1", containers=1, notes=("pixels of 0 and 1, scaled to 0 and 255",)),
    ),
    "no header": (
        {"train.csv": pixels_csv(header="1,0,255,0,0")},
        used(
            "0",
            "1",
            train=9,
            containers=1,
            notes=("train.csv has no header: the label comes first",),
        ),
    ),
    "dotted IDX": (
        idx_files("{part}-{kind}.idx{number}-ubyte"),
        used("0", "1", "2", train=12, test=12, containers=4),
    ),
    "torchvision's raw": (
        idx_files("FashionMNIST/raw/{part}-{kind}-idx{number}-ubyte")
        | idx_files("FashionMNIST/raw/{part}-{kind}-idx{number}-ubyte.gz", pack=gzip.compress),
        used("0", "1", "2", train=12, test=12, containers=4, passed_over={"other IDX files": 4}),
    ),
    "EMNIST": (
        idx_files("emnist-letters-{part}-{kind}-idx{number}-ubyte", ("train", "test"), first=1)
        | {"emnist-letters-mapping.txt": b"1 65 97\r\n2 66 98\r\n3 67 99\r\n", "notes.txt": TEXT},
        used(
            "Aa",
            "Bb",
            "Cc",
            train=12,
            test=12,
            containers=5,
            notes=(
                "images transposed to be upright, as EMNIST stores them lying",
                "labels 1 to 3, 3 in use, numbered from 0",
                "names of classes from emnist-letters-mapping.txt",
            ),
            passed_over={"other files": 1},
        ),
    ),
    "EMNIST without names, packed": (
        idx_files(
            "raw/EMNIST-balanced-{part}-{kind}-idx{number}-ubyte.gz",
            ("train", "test"),
            pack=gzip.compress,
        ),
        used(
            "0",
            "1",
            "2",
            train=12,
            test=12,
            containers=4,
            notes=(
                "images transposed to be upright, as EMNIST stores them lying",
                "no *-mapping.txt beside them, so classes are called by their numbers",
            ),
        ),
    ),
    "EMNIST with a label of no name": (
        idx_files("emnist-byclass-{part}-{kind}-idx{number}-ubyte", ("train", "test"))
        | {"emnist-byclass-mapping.txt": b"0 48\n1 49\n"},
        used(
            "0",
            "1",
            "2",
            train=12,
            test=12,
            containers=5,
            notes=(
                "images transposed to be upright, as EMNIST stores them lying",
                "emnist-byclass-mapping.txt has no name for 2, so classes are called by numbers",
            ),
        ),
    ),
    "EMNIST's CSV files": (
        {
            "emnist-balanced-train.csv": pixels_csv(header="10,0,255,0,0", labels=("10", "36")),
            "emnist-balanced-test.csv": pixels_csv(header="36,0,255,0,0", labels=("10", "36")),
            "emnist-balanced-mapping.txt": b"10 65\n36 97\n",
        },
        used(
            "A",
            "a",
            train=9,
            test=9,
            containers=3,
            notes=(
                "emnist-balanced-train.csv has no header: the label comes first",
                "emnist-balanced-test.csv has no header: the label comes first",
                "images transposed to be upright, as EMNIST stores them lying",
                "labels 10 to 36, 2 in use, numbered from 0",
                "names of classes from emnist-balanced-mapping.txt",
            ),
        ),
    ),
    "IDX in folders of the same name": (
        idx_files("{part}-{kind}-idx{number}-ubyte/{part}-{kind}-idx{number}-ubyte"),
        used("0", "1", "2", train=12, test=12, containers=4),
    ),
    "IDX without a test": (
        idx_files("{part}-{kind}-idx{number}-ubyte", ("train",)),
        used("0", "1", "2", train=12, containers=2),
    ),
}

NPZ = {
    "floats a little above 1": (
        {"x_train": IMAGES / 255 * 1.0000002, "y_train": LABELS},
        used("0", "1", train=12, notes=("pixels in [0, 1], scaled to [0, 255]",)),
    ),
    "booleans": (
        {"x_train": IMAGES > 99, "y_train": LABELS > 0},
        used("0", "1", train=12, notes=("pixels of 0 and 1, scaled to 0 and 255",)),
    ),
    "16 bits": (
        {"x_train": IMAGES.astype(np.uint16) * 257, "y_train": LABELS},
        used("0", "1", train=12, notes=("pixels of 16 bits, scaled to 8",)),
    ),
    "float bytes": (
        {"x_train": IMAGES.astype(np.float32), "y_train": LABELS},
        used("0", "1", train=12, notes=("floats in [0, 255], rounded",)),
    ),
    "labels in words": (
        {"x_train": IMAGES, "y_train": np.array(["dog", "cat"])[LABELS]},
        used(train=12),
    ),
    "one-hot with names": (
        {
            "x_train": IMAGES,
            "y_train": np.eye(2)[LABELS],
            "class_names": np.array(["dog", "cat"]),
        },
        used("dog", "cat", train=12, notes=("one-hot labels",)),
    ),
    "a validation part and other arrays": (
        {"x_train": IMAGES, "y_train": LABELS, "x_val": IMAGES, "y_val": LABELS, "z": LABELS},
        used("0", "1", train=12, validation=12, passed_over={"other arrays": 1}),
    ),
    "MedMNIST's names": (
        {
            f"{part}_{kind}": array
            for part in ("train", "val", "test")
            for kind, array in (("images", IMAGES), ("labels", LABELS[:, np.newaxis]))
        },
        used("0", "1", train=12, validation=12, test=12),
    ),
}

REFUSED = {
    "flat train and test": (FLAT, "", "train, test1 should hold one folder for each class"),
    "flat train alone": (dict.fromkeys(names("train"), PNG), "", "images without classes"),
    "test and test1": (
        classes("train/", "test/", "test1/", count=1),
        "",
        "one folder for test. Received: test, te",
    ),
    "train a class or a part": (
        classes("train/") | dict.fromkeys(names("bus"), PNG),
        "",
        "which may mean either",
    ),
    "a class without images": (classes("") | {"bird/a.txt": TEXT}, "", "if it is no class, move"),
    "no such file": ({"a.csv": table("path,label", "x.png,a")}, "", "'x.png', which is not there"),
    "one image, two labels": (
        {"0.png": PNG, "a.csv": table("path,label", "0.png,a", "0.png,b")},
        "",
        "one label",
    ),
    "a row without a label": (
        {"0.png": PNG, "a.csv": table("path,label", "0.png,")},
        "",
        "row 2, column label",
    ),
    "a part of no name": (
        {"0.png": PNG, "a.csv": table("path,label,split", "0.png,a,extra")},
        "",
        "'extra'",
    ),
    "a table that is cut off": (
        {"0.png": PNG, "a.csv": b"path,label\n0.png,a"},
        "",
        "this line break is missing",
    ),
    "several tables": (
        {"a_train.csv": pixels_csv(), "b_train.csv": pixels_csv()},
        "",
        "name it: --data",
    ),
    "several IDX sets": (
        idx_files("emnist-letters-{part}-{kind}-idx{number}-ubyte")
        | idx_files("emnist-digits-{part}-{kind}-idx{number}-ubyte"),
        "",
        "name a file of the one to take",
    ),
    "EMNIST with a damaged mapping": (
        idx_files("emnist-letters-{part}-{kind}-idx{number}-ubyte", ("train",), first=1)
        | {"emnist-letters-mapping.txt": b"1 65 97\n2 66 x\n"},
        "",
        "emnist-letters-mapping.txt, line 2: should be a label and the ASCII codes",
    ),
    "EMNIST with a mapping that moves the cursor": (
        idx_files("emnist-letters-{part}-{kind}-idx{number}-ubyte", ("train",), first=1)
        | {"emnist-letters-mapping.txt": b"1 65 97\n2 27 99\n"},
        "",
        "line 2: should be a label",
    ),
    "a test table by its capitals": ({"Test.csv": pixels_csv()}, "Test.csv", "a test set"),
    "test pixels of another range": (
        {"train.csv": pixels_csv(), "test.csv": pixels_csv(high=1)},
        "",
        "what is white is unclear",
    ),
}


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def main() -> None:
    """Prints a walk through all of them."""
    console.speak()
    walks = [(name, files, "") for name, (files, _) in USED.items()]
    walks += [
        (name, {"data.npz": arrays(**values)}, "data.npz") for name, (values, _) in NPZ.items()
    ]
    walks += [(name, files, data) for name, (files, data, _) in REFUSED.items()]
    for number, (name, files, data) in enumerate(walks, 1):
        with tempfile.TemporaryDirectory() as folder:
            root = write(Path(folder, "data"), files)
            console.say(f"{number}. {name}: {len(files)} files")
            console.say(f"   {_tell(str(root / data)).replace(f'{folder}{os.sep}', '')}")


def _tell(data: str) -> str:
    try:
        load_splits(data)
        loaded = load_undivided(data)
    except InputError as error:
        return f"refused: {error}"
    counts = ", ".join(f"{split.num_images} {part}" for part, split in loaded.parts().items())
    return f"used: {counts}, {len(loaded.class_names)} classes; {describe_origin(loaded)}"


if __name__ == "__main__":
    main()
