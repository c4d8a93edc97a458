"""Damages small data sets of every format and looks for a traceback, a hang or a wrong result.

`python -m tools.fuzz_data --format npz --seconds 60` runs libFuzzer by way of atheris
(`pip install atheris`), which looks for inputs that reach new code; `--engine random` needs
nothing and compares each answer with the good one besides. What is found lies in `--out`, and
the exit code is 1. `test_corrupt_data.py` runs over the same table `FORMATS`.
"""

import argparse
import gzip
import hashlib
import io
import lzma
import random
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

try:
    import resource
except ImportError:  # on Windows, where the memory is not watched
    resource = None

MOST_SECONDS = 5.0  # of processor time for one input
_MOST_GROWTH = 2 << 30  # bytes of memory; an image at Pillow's limit of pixels needs 1.4 GB
_IDX_STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte") + (
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

# transfer and Pillow are imported late: atheris sees only what is imported after it.


@dataclass(frozen=True)
class Format:
    """A good data set, each of whose files is damaged in turn.

    Attributes:
        files: content of each file, by its path in the data set's folder.
        read: takes the folder and the path of the damaged file; returns the arrays that come
            of it or raises InputError.
        is_checked: the format has checksums, so that no damage may change the answer.
    """

    files: dict[str, bytes]
    read: Callable[[Path, str], list[np.ndarray]]
    is_checked: bool

    def write(self, folder: Path) -> None:
        """Writes the good files."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)

    def answer(self, folder: Path, name: str, content: bytes) -> list[np.ndarray] | str:
        """Returns what comes of a damaged file: arrays, or the line that refuses it.

        Raises:
            AssertionError: the answer is not what the rest of the code may rely on.
            Exception: what a user would see as a traceback.
        """
        from transfer.errors import InputError

        (folder / name).write_bytes(content)
        try:
            arrays = self.read(folder, name)
        except InputError as error:
            line = str(error)
            assert len(line.splitlines()) == 1 and line.isprintable(), line
            assert Path(name).stem in line or str(folder) in line, line
            assert len(line) < 1000, line
            return line
        assert all(array.dtype == np.uint8 and array.ndim == 4 for array in arrays[::2])
        assert all(array.size for array in arrays)
        return arrays


# --- Good data ------------------------------------------------------------------------------


def _draw(num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    # Returns images uint8 (N, 4, 4) and labels uint8 (N,) of two classes.
    generator = np.random.RandomState(seed)
    labels = np.arange(num_images, dtype=np.uint8) % 2
    return generator.randint(0, 256, (num_images, 4, 4), np.uint8), labels


_ARRAYS = (*_draw(20, 0), *_draw(6, 1))


def _read_loaded(path: Path) -> list[np.ndarray]:
    # Returns images and labels in turn, and labels by the names of their classes.
    from transfer.datasets import sources

    loaded = sources._load_path(str(path))
    splits = [split for split in (loaded.train, loaded.test) if split is not None]
    names = np.array(loaded.class_names)
    return [array for s in splits for array in (s.images, names[s.labels])]


def _read_image(folder: Path, name: str) -> list[np.ndarray]:
    from transfer.data.splits import Split

    paths = np.array([str(folder / name)], dtype=object)
    split = Split(paths, np.zeros(1, np.int64), str(folder))
    return [decode_alone(split, 96).images]


def decode_alone(split, image_size: int, **options):
    """Decodes a split that is a data set of its own; options as of `decode_split`."""
    from transfer.data.decode import decode_split, measure_geometry

    return decode_split(split, measure_geometry([split], image_size), **options)


def _make_idx(suffix: str, pack: Callable[[bytes], bytes], is_checked: bool) -> Format:
    files = {}
    for stem, array in zip(_IDX_STEMS, _ARRAYS, strict=True):
        header = struct.pack(f">{array.ndim + 1}I", 0x0800 + array.ndim, *array.shape)
        files[stem + suffix] = pack(header + array.tobytes())
    return Format(files, lambda folder, name: _read_loaded(folder), is_checked)


def _make_csv() -> Format:
    images, labels = _ARRAYS[:2]
    rows = [["label", *(f"pixel{i}" for i in range(1, 17))]]
    rows += [[label, *image.ravel()] for image, label in zip(images, labels, strict=True)]
    content = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    return Format({"d.csv": content}, lambda folder, name: _read_loaded(folder / name), False)


def _make_npz() -> Format:
    arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), _ARRAYS, strict=True))
    arrays["class_names"] = np.array(["cat", "dog"])
    files = {}
    for name, save in (("stored.npz", np.savez), ("packed.npz", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        files[name] = buffer.getvalue()
    return Format(files, lambda folder, name: _read_loaded(folder / name), True)


def _save(image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Returns a part of a PNG file with its length and checksum."""
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def _make_png_in_parts(pixels: np.ndarray) -> bytes:
    # Pillow writes one IDAT; a cut between two is a damage of its own. pixels (H, W)
    header = struct.pack(">2I5B", *pixels.shape[::-1], 8, 0, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    parts = [packed[start : start + 100] for start in range(0, len(packed), 100)]
    chunks = [(b"IHDR", header), *((b"IDAT", part) for part in parts), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def _make_images(file_format: str) -> Format:
    from PIL import Image

    generator = np.random.RandomState(0)
    small = Image.fromarray(generator.randint(0, 256, (12, 12, 3), np.uint8))
    colour = small.resize((24, 24), Image.Resampling.BICUBIC)
    gray, palette, alpha = colour.convert("L"), colour.quantize(16), colour.copy()
    alpha.putalpha(gray)
    frames = {"save_all": True, "append_images": [small.rotate(90)]}
    wide = Image.fromarray(generator.randint(0, 65536, (12, 12)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = {  # an image and how it is saved
        "PNG": [(colour, {}), (palette, {"transparency": 0}), (wide, {}), (alpha, {"exif": exif})],
        "JPEG": [(colour, {"exif": exif}), (gray, {"progressive": True}), (small, {})],
        "BMP": [(colour, {}), (palette, {})],
        "WEBP": [(colour, {}), (alpha, {"lossless": True}), (small, frames)],
        "GIF": [(palette, {"transparency": 0}), (gray, {}), (small, frames)],
        "TIFF": [
            (colour, {}),
            (gray, {"compression": "tiff_lzw", "tiffinfo": {0x0112: 6}}),
            (wide, {}),
            (alpha, {"compression": "tiff_adobe_deflate"}),
        ],
        "PPM": [(colour, {}), (gray, {}), (gray.convert("1"), {})],
        "AVIF": [(colour, {"exif": exif}), (alpha, {})],
    }[file_format]
    contents = [_save(image, file_format, **options) for image, options in rows]
    if file_format == "PNG":
        contents.append(_make_png_in_parts(np.asarray(gray)))
    if file_format == "JPEG":
        contents.append(_save(colour.convert("CMYK"), "JPEG"))
    suffix = file_format.lower()
    files = {f"{index}.{suffix}": content for index, content in enumerate(contents)}
    return Format(files, _read_image, file_format == "PNG")


def _samples() -> list[tuple[bytes, int]]:
    from PIL import Image

    images, labels = _ARRAYS[:2]
    return [
        (_save(Image.fromarray(image), "PNG"), int(label))
        for image, label in zip(images, labels, strict=True)
    ]


def _make_tar() -> Format:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, (content, label) in enumerate(_samples()):
            for suffix, one in (("png", content), ("cls", b"%d" % label)):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(one)
                archive.addfile(member, io.BytesIO(one))
    return Format({"d.tar": buffer.getvalue()}, _read_records, False)


def _make_tfrecord() -> Format:
    from transfer.datasets.formats.tfrecord import _masked_crc32c

    def tagged(number: int, content: bytes) -> bytes:
        size = len(content)
        return bytes([number << 3 | 2, size & 127 | 128, size >> 7]) + content

    records = []
    for content, label in _samples():
        features = {
            b"image/encoded": tagged(1, tagged(1, content)),
            b"image/class/label": tagged(3, tagged(1, bytes([label]))),
        }
        entries = (tagged(1, tagged(1, key) + tagged(2, one)) for key, one in features.items())
        record = tagged(1, b"".join(entries))
        for part in (struct.pack("<Q", len(record)), record):
            records += [part, struct.pack("<I", _masked_crc32c(part))]
    return Format({"d.tfrecord": b"".join(records)}, _read_records, False)


def _make_parquet() -> Format:
    import pyarrow
    import pyarrow.parquet

    contents, labels = zip(*_samples(), strict=True)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table({"image": contents, "label": labels}), buffer, row_group_size=8
    )
    return Format({"d.parquet": buffer.getvalue()}, _read_records, False)


def _read_records(folder: Path, name: str) -> list[np.ndarray]:
    from transfer.data.decode import decode_split
    from transfer.data.geometry import Geometry
    from transfer.datasets import sources

    train = decode_split(sources.load_undivided(str(folder / name)).train, Geometry(4, 4, 1))
    return [train.images, train.labels]


FORMATS: dict[str, Callable[[], Format]] = {
    "idx": lambda: _make_idx("", bytes, False),
    "idx-gz": lambda: _make_idx(".gz", lambda content: gzip.compress(content, mtime=0), True),
    "idx-xz": lambda: _make_idx(".xz", lzma.compress, True),
    "csv": _make_csv,
    "npz": _make_npz,
    "png": lambda: _make_images("PNG"),
    "jpeg": lambda: _make_images("JPEG"),
    "bmp": lambda: _make_images("BMP"),
    "webp": lambda: _make_images("WEBP"),
    "gif": lambda: _make_images("GIF"),
    "tiff": lambda: _make_images("TIFF"),
    "ppm": lambda: _make_images("PPM"),
    "avif": lambda: _make_images("AVIF"),
    "tar": _make_tar,
    "tfrecord": _make_tfrecord,
    "parquet": _make_parquet,
}


# --- Damage ---------------------------------------------------------------------------------


def mutate(content: bytes, dice: random.Random) -> bytes:
    """Returns a damaged copy: bytes changed, lost, doubled, cut off, or numbers made extreme."""
    changed = bytearray(content)
    for _ in range(dice.choice([1, 1, 1, 2, 4, 16])):
        start = dice.randrange(len(changed) + 1)
        end = min(len(changed), start + dice.choice([1, 2, 4, 8, 64, 512]))
        kind = dice.choice(["lose", "double", "noise", "extreme", "cut", "bit", "bit", "bit"])
        if kind == "lose":
            del changed[start:end]
        elif kind == "double":
            changed[start:start] = changed[start:end]
        elif kind == "noise":
            changed[start:end] = dice.randbytes(end - start)
        elif kind == "extreme":
            changed[start:end] = dice.choice([b"\0", b"\xff", b"\x7f"]) * (end - start)
        elif kind == "cut" and dice.random() < 0.3:
            del changed[start:]
        elif start < len(changed):
            changed[start] ^= 1 << dice.randrange(8)
    return bytes(changed)


def are_same(one: list[np.ndarray] | str, other: list[np.ndarray] | str) -> bool:
    """Returns whether two answers are the same arrays."""
    if isinstance(one, str) or isinstance(other, str) or len(one) != len(other):
        return False
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def check(data: Format, folder: Path, name: str, content: bytes) -> list[np.ndarray] | str:
    """Returns what comes of a damaged file, within bounds of time and memory.

    Raises:
        AssertionError: it took too long or too much.
    """
    memory = _peak_memory()
    start = time.process_time()
    found = data.answer(folder, name, content)
    assert time.process_time() - start < MOST_SECONDS, "took too long"
    grown = _peak_memory() - memory
    assert grown < _MOST_GROWTH, f"took {grown >> 20} MiB of memory"
    return found


def _peak_memory() -> int:
    # In bytes. macOS tells these, Linux KiB.
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


# --- Engines --------------------------------------------------------------------------------


def fuzz_random(name: str, seconds: float, seed: int, out: Path) -> int:
    """Tries random damages for a while. Returns the exit code: 1 where one is not borne."""
    data, dice = FORMATS[name](), random.Random(seed)
    counts = {"refused": 0, "as before": 0, "changed": 0}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        data.write(Path(folder))
        good = {file: data.read(Path(folder), file) for file in data.files}
        while time.monotonic() < end:
            file = dice.choice(list(data.files))
            content = mutate(data.files[file], dice)
            try:
                found = check(data, Path(folder), file, content)
                is_same = are_same(found, good[file])
                told = isinstance(found, str)
                assert is_same or told or not data.is_checked, "a wrong result without a word"
            except Exception:
                return _keep_finding(out, file, content)
            finally:
                (Path(folder) / file).write_bytes(data.files[file])
            counts["refused" if told else "as before" if is_same else "changed"] += 1
    told_counts = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    print(f"{name}: {sum(counts.values()):,} damaged files, {told_counts}; nothing found.")
    return 0


def _keep_finding(out: Path, file: str, content: bytes) -> int:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{hashlib.sha256(content).hexdigest()[:8]}-{file}"
    path.write_bytes(content)
    traceback.print_exc()
    print(f"found: {path}")
    return 1


def fuzz_atheris(name: str, seconds: float, seed: int, out: Path) -> None:
    """Runs libFuzzer for a while; it ends the process itself and keeps what it finds."""
    try:
        import atheris
    except ImportError:
        sys.exit("--engine atheris needs atheris: pip install atheris, or --engine random.")
    with atheris.instrument_imports(include=["transfer", "PIL", "zipfile", "gzip", "lzma"]):
        from transfer.data import decode  # noqa: F401  and with it all that reads data
    data = FORMATS[name]()
    out.mkdir(parents=True, exist_ok=True)
    corpus, folder = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    data.write(folder)
    files = list(data.files)
    for index, content in enumerate(data.files.values()):  # the first byte chooses the file
        (corpus / str(index)).write_bytes(bytes([index]) + content)

    def try_one(content: bytes) -> None:
        if content:
            file = files[content[0] % len(files)]
            check(data, folder, file, content[1:])
            (folder / file).write_bytes(data.files[file])

    options = [f"-max_total_time={seconds:.0f}", f"-seed={seed}", "-print_final_stats=1"]
    options += [f"-artifact_prefix={out}/", "-max_len=8192", "-rss_limit_mb=4096", "-timeout=30"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], try_one)
    atheris.Fuzz()


def main(arguments: list[str] | None = None) -> int:
    """Reads the options and fuzzes one format; returns the exit code."""
    parser = argparse.ArgumentParser(description="Looks for data files that are not borne.")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long, 60")
    parser.add_argument("--engine", choices=("atheris", "random"), default="atheris")
    parser.add_argument("--seed", type=int, default=0, help="of the damages, 0")
    parser.add_argument("--out", type=Path, default=Path("findings"), help="where findings go")
    options = parser.parse_args(arguments)
    fuzz = fuzz_random if options.engine == "random" else fuzz_atheris
    return fuzz(options.format, options.seconds, options.seed, options.out)


if __name__ == "__main__":
    sys.exit(main())
