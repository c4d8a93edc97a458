"""From image files to one uint8 array: the step of the walk that only data sets of files need.

Each file is decoded once, in threads, straight to the working size; what comes out is what an
array data set has from the beginning, so nothing later knows that there were files. PNG has
checksums, the other formats have none: of them, a file that is cut off is told, a byte that has
changed only where its decoder stumbles over it.
"""

import contextlib
import dataclasses
import functools
import io
import math
import os
import re
import shutil
import stat
import struct
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
import PIL
from PIL import Image, ImageFile, UnidentifiedImageError

from transfer.data.fingerprints import fingerprint
from transfer.data.geometry import (
    AUTO,
    SQUASH,
    Geometry,
    Shape,
    choose_geometry,
    describe_fit,
    fit_pixels,
    is_squashed,
)
from transfer.data.orientation import UPRIGHT, has_late_profile, read_orientation
from transfer.data.ranges import check_decoded
from transfer.data.records import Encoded, Record
from transfer.data.splits import Split, Splits
from transfer.data.streamed import StreamedImages
from transfer.errors import InputError, printable
from transfer.machine import usable_memory

# Other decoders never see a user's file. HEIF is there with pillow-heif, AVIF from Pillow 11.3 on.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
NO_HEIC = "HEIC, which needs pillow-heif: pip install 'transfer[heic]'"
_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise for damaged bytes, and its guard against decompression bombs.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,  # of the AVIF and HEIF decoders
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_MOST_BAD_NAMED = 3  # in the provenance line
_BATCH = 32  # images a thread takes at a time
_MOST_FILE_BYTES = 4 * 90_000_000  # what the most pixels that Pillow takes need uncompressed
# Decoding takes up to 16 bytes a pixel: of larger images one is decoded at a time, always by
# the same thread, because each thread keeps some of the memory that it has freed.
_LARGE_PIXELS = 8_000_000
_large_images = ThreadPoolExecutor(1)
_silencing = threading.Lock()
# Every marker but those that may stand within a scan: stuffed zeros, fill bytes, restarts.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_SCAN, _END = b"\xda", b"\xd9"
_MOST_SCANS = 100  # progressive JPEGs have about ten
# What the rawmode of a PNG's pixels does to them, and Pillow not to the key of transparency.
_KEY_SCALES = {"1": 255.0, "L;2": 85.0, "L;4": 17.0, "RGB;16B": 1 / 256}
_SIXTEEN_TO_EIGHT = ((np.arange(1 << 16, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def decode_splits(
    splits: Splits,
    image_size: int,
    *,
    fit: str = SQUASH,
    geometry: Geometry | None = None,
    skip_bad_images: bool = False,
    bad: list[str] | None = None,
) -> Splits:
    """Decides the geometry of a data set and decodes all three splits to it.

    All are decoded before anything is told, so that files that do not decode are told at once.

    Args:
        splits: a data set, of arrays or of image files.
        image_size: side of the images that the network sees, in pixels.
        fit: how images that are not square become so; see `choose_geometry`. What that does,
            and to how many, is added to the provenance line.
        geometry: as it was decided before, None to decide it now.
        skip_bad_images: leave out image files that do not decode. Their number is added to
            the provenance line.
        bad: takes one line ("path (reason)") for each file that does not decode.

    Returns:
        The data set with uint8 images (N, H, W, 1 or 3) of one geometry; see `decode_split`.

    Raises:
        InputError: files do not decode and are not to be skipped, or a class would be left
            empty, or there is no room for the pixels.
    """
    found: list[str] = []
    parts = splits.parts()
    shapes = {name: _measure(split, found) for name, split in parts.items()}
    geometry = geometry or choose_geometry(_known(*shapes.values()), image_size, fit)
    in_memory = _fits_memory(sum(split.num_images for split in parts.values()), geometry)
    decoded = {
        name: _decode(parts[name], shapes[name], geometry, found, in_memory) for name in parts
    }
    total = sum(split.num_images for split in parts.values())
    _report(found, bad, total, splits.train.root, skip_bad_images)
    for name, split in decoded.items():
        _check_classes(parts[name], split)
    if splits.train.are_files:
        check_decoded({name: split.images for name, split in decoded.items()})
    notes = [f"left out {_count_bad(found)}"] if found else []
    if any(isinstance(split.images, StreamedImages) for split in decoded.values()):
        size = sum(split.images.nbytes for split in decoded.values())
        notes.append(f"decoded anew in every pass, as {size / 1e9:.1f} GB have no room")
    notes.append(describe_fit(_of_each_image(parts, shapes), geometry))
    return dataclasses.replace(
        splits,
        train=decoded["train"],
        validation=decoded["validation"],
        test=decoded["test"],
        origin="; ".join([splits.origin, *filter(None, notes)]),
        geometry=geometry,
    )


def _count_bad(bad: list[str]) -> str:
    others = ", ..." if len(bad) > _MOST_BAD_NAMED else ""
    named = printable(", ".join(bad[:_MOST_BAD_NAMED]))
    what = "image file that does" if len(bad) == 1 else "image files that do"
    return f"{len(bad):,} {what} not decode: {named}{others}"


def decode_split(
    split: Split,
    geometry: Geometry,
    *,
    skip_bad_images: bool = False,
    bad: list[str] | None = None,
) -> Split:
    """Decodes the image files of a split into one array, each file once.

    Each image is brought to the geometry, with antialiasing. Transparency is put on white,
    16 bits are scaled to 8, EXIF's orientation is applied, GIF gives its first frame. What is
    larger than a quarter of the physical memory, of a data set all its splits together, lies in
    temporary files that go with the process; where there is no room for that either, images are
    decoded whenever they are asked for, see `StreamedImages`.

    Args:
        split: image files, or an array: that is returned as it is where it has the geometry,
            else brought to it in the same way.
        geometry: of the data set.
        skip_bad_images: leave out image files that do not decode.
        bad: takes one line ("path (reason)") for each file that does not decode.

    Returns:
        A split with uint8 images (N, H, W, 1 or 3) in [0, 255], in the same order.

    Raises:
        InputError: files do not decode and are not to be skipped, or a class would be left
            empty, or there is no room for the pixels.
    """
    found: list[str] = []
    in_memory = _fits_memory(split.num_images, geometry)
    decoded = _decode(split, _measure(split, found), geometry, found, in_memory)
    _report(found, bad, split.num_images, split.root, skip_bad_images)
    _check_classes(split, decoded)
    return decoded


def measure_geometry(splits: Iterable[Split], image_size: int, fit: str = SQUASH) -> Geometry:
    """Returns the geometry that `decode_splits` would decide for these splits.

    Args:
        splits: image files, or arrays; files that cannot be read do not count.
        image_size: side of the images that the network sees, in pixels.
        fit: as of `decode_splits`.
    """
    return choose_geometry(_known(*(_measure(split, []) for split in splits)), image_size, fit)


class Readable(NamedTuple):
    """What could be decoded of a split.

    Attributes:
        images: uint8 (M, H, W, 1 or 3).
        indices: int (M,), the index in the split of each.
        sizes: int (M, 2), width and height of each as it is stored.
        bad: one line ("path (reason)") for each file that does not decode.
    """

    images: np.ndarray
    indices: np.ndarray
    sizes: np.ndarray
    bad: list[str]


def decode_readable(split: Split, image_size: int) -> Readable:
    """Decodes what can be decoded of a split, and goes on whatever the rest is.

    Args:
        split: image files, or an array.
        image_size: side in pixels, as of `decode_splits`; the fit is "auto".

    Raises:
        InputError: no file decodes, or there is no room for the pixels.
    """
    bad: list[str] = []
    # In place of the labels: they stay with the images that are kept.
    numbered = dataclasses.replace(split, labels=np.arange(split.num_images))
    shapes = _measure(numbered, bad)
    geometry = choose_geometry(_known(shapes), image_size, AUTO)
    in_memory = _fits_memory(split.num_images, geometry)
    decoded = _decode(numbered, shapes, geometry, bad, in_memory)
    if not decoded.num_images:
        _report(bad, None, split.num_images, split.root, skip=False)
    of_each = shapes if split.are_files else shapes * split.num_images
    sizes = [shape.size for shape in map(of_each.__getitem__, decoded.labels) if shape is not None]
    return Readable(decoded.images, decoded.labels, np.array(sizes).reshape(-1, 2), bad)


def describe_fit_of(split: Split, geometry: Geometry) -> str:
    """Returns what bringing a split to a geometry does to images that are not square, in words.

    Args:
        split: image files, or an array; files that cannot be read do not count.
        geometry: of the data set that they are brought to; "" where it keeps what they are.
    """
    shapes = _of_each_image({"": split}, {"": _measure(split, [])})
    return describe_fit(shapes, geometry)


class DecodedFiles(NamedTuple):
    """What could be decoded of N photos.

    Attributes:
        images: uint8 (M, H, W, 1 or 3).
        indices: int (M,), the index of each among the photos.
        reasons: of each of the N, why it does not decode; "" where it does.
        squashed: bool (M,), whether its aspect was not kept.
    """

    images: np.ndarray
    indices: np.ndarray
    reasons: list[str]
    squashed: np.ndarray


def decode_files(paths: Sequence[Encoded], geometry: Geometry) -> DecodedFiles:
    """Decodes photos as the images of a data set are, each by itself.

    Args:
        paths: N image files, or images within files.
        geometry: of the data set.
    """

    def read(index: int, path: Encoded) -> tuple[np.ndarray, bool]:
        squashed = is_squashed(_read_shape(index, path), geometry)
        return _read_pixels(path, geometry), squashed

    results, reasons = _try_files(read, paths)
    good = [index for index, result in enumerate(results) if result is not None]
    images = [results[index][0] for index in good]
    shape = (len(good), *geometry.shape)
    squashed = np.array([results[index][1] for index in good], bool)
    return DecodedFiles(
        np.asarray(images, np.uint8).reshape(shape), np.array(good, int), reasons, squashed
    )


def decode_thumbnail(path: str, side: int) -> Image.Image:
    """Decodes a photo to be looked at: RGB, upright, its aspect kept, no side longer than `side`.

    Raises:
        InputError: it does not decode.
    """

    def read(index: int, path: str) -> Image.Image:
        _read_shape(index, path)
        with _open_image(path) as image:
            orientation = _orientation(image)
            image.draft(None, (2 * side, 2 * side))
            photo = _to_eight_bits(image, "RGB")
        photo.thumbnail((side, side))
        return photo.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else photo

    (photo,), (reason,) = _try_files(read, [path])
    if reason:
        raise InputError(f"{path} does not decode: {reason}.")
    assert isinstance(photo, Image.Image)
    return photo


def shrink_images(images: np.ndarray, image_size: int) -> np.ndarray:
    """Returns uint8 images (N, H, W, C) as they are, or squashed to a side.

    Args:
        images: uint8 (N, H, W, C).
        image_size: images with a longer side come out as (image_size, image_size).
    """
    split = Split(images, np.zeros(len(images), np.int64))
    geometry = choose_geometry(_known(_measure(split, [])), image_size)
    return _fit_array(split, geometry, _fits_memory(split.num_images, geometry)).images


def _known(*of_parts: Iterable[Shape | None]) -> Iterator[Shape]:
    for shapes in of_parts:
        yield from (shape for shape in shapes if shape is not None)


def _of_each_image(
    parts: Mapping[str, Split], shapes: Mapping[str, list[Shape | None]]
) -> list[Shape]:
    # One shape an image, those of bad files left out.
    each: list[Shape] = []
    for name, split in parts.items():
        of_part = list(_known(shapes[name]))
        each += of_part if split.are_files else of_part * split.num_images
    return each


def _measure(split: Split, bad: list[str]) -> list[Shape | None]:
    # The shape of each image file, None where it is bad; of an array the one that all have.
    if split.are_files:
        return _map_files(_read_shape, split, bad)
    height, width, channels = split.images.shape[1:]
    return [Shape((width, height), channels == 1)]


def _decode(
    split: Split,
    shapes: list[Shape | None],
    geometry: Geometry,
    bad: list[str],
    in_memory: bool,
) -> Split:
    if not split.are_files:
        return _fit_array(split, geometry, in_memory)
    good = [index for index, shape in enumerate(shapes) if shape is not None]
    if not good:
        return split.take(np.array([], dtype=int))
    split = split.take(np.array(good))
    if not in_memory and not _has_room(split.num_images * math.prod(geometry.shape)):
        return dataclasses.replace(split, images=_stream(split, geometry))
    pixels = _allocate((len(good), *geometry.shape), in_memory)

    def decode_into(index: int, path: str) -> bool:
        pixels[index] = _read_pixels(path, geometry)
        return True

    decoded = _map_files(decode_into, split, bad)
    named = dataclasses.replace(split, images=pixels, names=_names(split))
    return _keep(named, [done is not None for done in decoded])


def _stream(split: Split, geometry: Geometry) -> np.ndarray:
    # They had a good header; one that does not decode nevertheless ends whatever asks for it.
    def decode(indices: np.ndarray) -> np.ndarray:
        asked = split.take(indices)
        decoded = decode_files(asked.encoded, geometry)
        for image, reason in zip(asked.encoded, decoded.reasons, strict=True):
            if reason:
                raise InputError(
                    f"{relative_name(str(image), split.root)} does not decode ({reason}), and what "
                    "is decoded as it is needed cannot be left out: mend or remove it."
                )
        return decoded.images

    def identify() -> str:
        return f"{fingerprint(split)} {geometry} Pillow {PIL.__version__}"

    return cast(np.ndarray, StreamedImages(split.num_images, geometry.shape, decode, identify))


def _names(split: Split) -> np.ndarray:
    # Path of each file from the root: str in an object array (N,).
    names = np.empty(split.num_images, object)
    names[:] = [relative_name(str(path), split.root) for path in split.encoded]
    return names


def relative_name(path: str, root: str) -> str:
    """Returns the name of an image as people see it: its path from the root of the data set."""
    # As os.path.relpath, which takes seconds for 200,000 files and knows no URL.
    return path.removeprefix(root + os.sep) if root else os.path.relpath(path)


def _keep(split: Split, wanted: list[bool]) -> Split:
    # Moves images within their array: a copy might not fit into memory.
    if all(wanted):
        return split
    indices = np.flatnonzero(wanted)
    for new, old in enumerate(indices):
        split.images[new] = split.images[old]
    names = None if split.names is None else split.names[indices]
    return Split(split.images[: len(indices)], split.labels[indices], split.root, names)


def _map_files(function: Callable[..., Any], split: Split, bad: list[str]) -> list[Any]:
    # Returns the results of function(index, path) for each file, None for files that are bad.
    results, reasons = _try_files(function, split.encoded)
    for index, reason in enumerate(reasons):
        if reason:
            bad.append(f"{relative_name(str(split.encoded[index]), split.root)} ({reason})")
    return results


def _try_files(
    function: Callable[..., Any], paths: Sequence[Encoded]
) -> tuple[list[Any], list[str]]:
    # Calls function(index, path) for each file, in threads: Pillow decodes without the
    # interpreter's lock. Returns the results, None for files that are bad, and what is wrong.
    def call(index: int) -> tuple[Any, str]:
        try:
            return function(index, paths[index]), ""
        except _DECODE_ERRORS as error:
            return None, _reason(error)

    with _silent_libtiff(), warnings.catch_warnings():
        # Set in this one thread, for all: these filters are the process's.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        results = _map_threaded(call, len(paths))
    return [result for result, _ in results], [reason for _, reason in results]


@contextlib.contextmanager
def _silent_libtiff() -> Iterator[None]:
    # It writes what is damaged in a file to stderr, around Python: many lines for each. The one
    # line that Pillow raises says as much.
    if not _silencing.acquire(blocking=False):  # another thread has silenced it
        yield
        return
    try:
        kept = os.dup(2)
    except OSError:  # a process without stderr
        kept = None
    try:
        if kept is not None:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)
        _silencing.release()


def _map_threaded(function: Callable[[int], Any], count: int) -> list[Any]:
    def call_batch(start: int) -> list[Any]:
        return [function(index) for index in range(start, min(start + _BATCH, count))]

    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        batches = pool.map(call_batch, range(0, count, _BATCH))
        return [result for batch in batches for result in batch]
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C only the batches at work are finished


def _read_shape(index: int, path: Encoded) -> Shape:
    with _open_image(path) as image:
        orientation = _orientation(image)
        size = image.size[::-1] if orientation >= 5 else image.size
        is_gray = image.mode in _GRAY_MODES
        if image.format == "PNG":
            image.verify()  # compares the checksum of each part, which decoding does not
    return Shape(size, is_gray)


def _read_pixels(path: Encoded, geometry: Geometry) -> np.ndarray:
    # Returns uint8 (H, W, 1 or 3).
    longest = max(geometry.height, geometry.width)
    with _open_image(path) as image:
        orientation = _orientation(image)
        if image.format in ("JPEG", "MPO") and image.fp:  # it stays open until the pixels are read
            _check_jpeg(image.fp)
        stored = image.width * image.height
        # A JPEG's decoder shrinks by 2, 4 or 8 on its way, to no less than twice what is needed.
        image.draft(None, (2 * longest, 2 * longest))
        is_whole = "progressive" in image.info  # such a decoder keeps the whole nevertheless
        if (stored if is_whole else image.width * image.height) > _LARGE_PIXELS:
            return _large_images.submit(_finish, image, orientation, geometry).result()
        return _finish(image, orientation, geometry)


def _finish(image: Image.Image, orientation: int, geometry: Geometry) -> np.ndarray:
    image = _to_eight_bits(image, "L" if geometry.channels == 1 else "RGB")
    if orientation in _TRANSPOSES:
        image = image.transpose(_TRANSPOSES[orientation])
    return fit_pixels(image, geometry)


def is_image_file(path: str) -> bool:
    """Returns whether a file's content, whatever its name, is that of an image.

    TIFF does not count: the raw files of cameras are TIFF by their first bytes, with a thumbnail.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is large is told where it is decoded
        try:
            with _open_image(path) as image:
                return image.format != "TIFF"
        except _DECODE_ERRORS as error:
            return NO_HEIC in str(error)


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _open_image(path: Encoded) -> ImageFile.ImageFile:
    file = _open_bytes(path)
    try:
        image = Image.open(file, formats=_readable_formats())
    except UnidentifiedImageError:
        _refuse_heic(path)
        raise
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.format == "PNG" and image.fp and has_late_profile(image.fp):
        image = _reopen_loaded(image, path)
    return image


def _open_bytes(path: Encoded) -> str | IO[bytes]:
    # What Pillow opens: the path of a file, or the bytes of one within another.
    if isinstance(path, Record):
        content = path.read()
        _check_size(len(content))
        return io.BytesIO(content)
    facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):  # opening a pipe might wait for ever
        raise ValueError("not a regular file")
    _check_size(facts.st_size)
    return path


def _check_size(num_bytes: int) -> None:
    if num_bytes == 0:
        raise ValueError("an empty file")
    if num_bytes > _MOST_FILE_BYTES:  # some decoders read the file whole
        raise ValueError("too many bytes")


def _reopen_loaded(image: ImageFile.ImageFile, path: Encoded) -> ImageFile.ImageFile:
    # Returns the image not loaded, as `verify` wants it, with what stands after its pixels.
    with Image.open(_open_bytes(path), formats=_readable_formats()) as loaded:
        if loaded.width * loaded.height > _LARGE_PIXELS:
            _large_images.submit(loaded.load).result()
        else:
            loaded.load()
    image.info |= {name: value for name, value in loaded.info.items() if name not in image.info}
    return image


def _refuse_heic(path: Encoded) -> None:
    if isinstance(path, Record):
        start = path.read()[:12]
    else:
        with open(path, "rb") as file:
            start = file.read(12)
    if start[4:8] == b"ftyp" and start[8:] in _HEIC_BRANDS and "HEIF" not in _readable_formats():
        raise ValueError(NO_HEIC)


def _check_jpeg(file: IO[bytes]) -> None:
    # Pillow says nothing of a file whose end is lost and filled up with zeros, and a few
    # kilobytes with thousands of scans over millions of pixels take minutes.
    file.seek(0)
    content = file.read()
    position, num_scans = 2, 0
    while found := _JPEG_MARKER.search(content, position):
        if found[1] == _END:
            return
        num_scans += found[1] == _SCAN
        if num_scans > _MOST_SCANS:
            raise ValueError(f"more than {_MOST_SCANS} scans")
        position = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    raise ValueError("the end is missing")


def _to_eight_bits(image: Image.Image, mode: str) -> Image.Image:
    _scale_key(image)
    image.load()
    if image.mode.startswith("I"):
        image = _from_sixteen_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _scale_key(image: Image.Image) -> None:
    # The value of a PNG that is transparent is told in the file's own bits.
    key, tiles = image.info.get("transparency"), getattr(image, "tile", ())
    scale = _KEY_SCALES.get(tiles[0][3]) if tiles and isinstance(tiles[0][3], str) else None
    if scale is None or key is None or isinstance(key, bytes):
        return
    values = [min(int(value * scale), 255) for value in (key if isinstance(key, tuple) else (key,))]
    image.info["transparency"] = tuple(values) if isinstance(key, tuple) else values[0]


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255, and forgets which value is transparent.
    values, key = np.asarray(image), image.info.get("transparency")
    if values.max() > 65535 or values.min() < 0:
        raise ValueError("32-bit pixels, whose range is not known")
    pixels = _SIXTEEN_TO_EIGHT[values]
    if isinstance(key, int):
        pixels[values == key] = 255
    return Image.fromarray(pixels)


def _orientation(image: ImageFile.ImageFile) -> int:
    # A broken profile is no reason to lose a picture.
    try:
        return read_orientation(image)
    except _DECODE_ERRORS:
        return UPRIGHT


def _fit_array(split: Split, geometry: Geometry, in_memory: bool) -> Split:
    if split.images.shape[1:] == geometry.shape:
        return split
    pixels = _allocate((split.num_images, *geometry.shape), in_memory)

    def fit(index: int) -> None:
        pixels[index] = fit_pixels(split.images[index], geometry)

    _map_threaded(fit, split.num_images)
    return dataclasses.replace(split, images=pixels)


def _fits_memory(num_images: int, geometry: Geometry) -> bool:
    return num_images * math.prod(geometry.shape) <= usable_memory() // 4


def _allocate(shape: tuple[int, ...], in_memory: bool) -> np.ndarray:
    if in_memory:
        return np.empty(shape, np.uint8)
    num_bytes = math.prod(shape)
    if not _has_room(num_bytes):  # a hole in the file would kill the process that writes to it
        raise InputError(
            f"the decoded images should have {num_bytes / 1e9:.1f} GB on the disk. Received: "
            f"{_free() / 1e9:.1f} GB free in {tempfile.gettempdir()}; give --limit, a smaller "
            "--image-size, or a TMPDIR with more room."
        )
    with tempfile.TemporaryFile() as file:  # has no name: it goes with the last who uses it
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _has_room(num_bytes: int) -> bool:
    # For decoded images that are too many for the memory, on the disk.
    return num_bytes <= _free()


def _free() -> int:
    return shutil.disk_usage(tempfile.gettempdir()).free


def _report(found: list[str], bad: list[str] | None, total: int, root: str, skip: bool) -> None:
    if bad is not None:
        bad.extend(found)
    if not found or skip:
        return
    others = f" and {len(found) - 10:,} more" if len(found) > 10 else ""
    raise InputError(
        f"all {total:,} image files in {root or 'the data set'} should decode. Received: "
        f"{len(found):,} that do not: {', '.join(found[:10])}{others}. "
        "Mend or remove them, or go on without them: --skip-bad-images."
    )


def _check_classes(before: Split, after: Split) -> None:
    empty = np.setdiff1d(before.labels, after.labels)
    if empty.size:
        index = int((before.labels == empty[0]).argmax())
        raise InputError(
            f"{Path(before.images[index]).parent} should have an image that decodes for each of "
            "training, validation and test. Received: none for one of them; mend the files, add "
            "others or remove the class."
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a PNG, JPEG, WebP, GIF, BMP, TIFF, PPM, AVIF or HEIC image"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too many pixels"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split("\n")[0].rstrip(".") or type(error).__name__
