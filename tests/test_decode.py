"""Image files become pixels: each mode right, each damage told, memory bounded."""

import io
import json
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tools.fuzz_data import decode_alone, png_chunk
from transfer.data import decode
from transfer.data.decode import (
    decode_readable,
    decode_split,
    decode_splits,
    measure_geometry,
    shrink_images,
)
from transfer.data.geometry import FITS, Geometry, Shape, choose_geometry, fit_pixels
from transfer.data.splits import Split, Splits
from transfer.data.streamed import StreamedImages
from transfer.datasets.sources import load_splits
from transfer.errors import InputError

RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cat").mkdir()
    return tmp_path


def make_files(folder, *images, suffix=".png", **options):
    """Saves images (or writes bytes) as files of class 0 and returns their split."""
    paths = []
    for index, image in enumerate(images):
        path = folder / "cat" / f"{index}{suffix}"
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **options)
        paths.append(str(path))
    return Split(np.array(paths, dtype=object), np.zeros(len(paths), np.int64), str(folder))


def to_bytes(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def random_image(height=12, width=12, channels=3, seed=0):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, shape, np.uint8))


# --- Modes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".gif", ".PNG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_pixels_are_exact(folder, suffix, channels):
    image = random_image(channels=channels)
    if suffix == ".gif" and channels == 3:
        image = image.quantize(16).convert("RGB")
    options = {"lossless": True} if suffix == ".webp" else {}
    split = decode_alone(make_files(folder, image, suffix=suffix, **options), 96)
    expected = np.asarray(image).reshape(12, 12, channels)
    if suffix in (".webp", ".gif") and channels == 1:  # WebP knows no gray, GIF has a palette
        expected = np.repeat(expected, 3, axis=2)
    assert split.images.dtype == np.uint8 and split.images.shape == (1, *expected.shape)
    assert (split.images[0] == expected).all()


def test_jpeg_is_close(folder):
    image = random_image(4, 4).resize((32, 32), Image.Resampling.BICUBIC)
    split = decode_alone(make_files(folder, image, suffix=".jpg", quality=95), 96)
    assert np.abs(split.images[0].astype(int) - np.asarray(image)).mean() < 3


def test_one_colour_image_makes_all_three_channels(folder):
    gray, colour = random_image(channels=1), random_image()
    split = decode_alone(make_files(folder, gray, colour), 96)
    assert split.images.shape == (2, 12, 12, 3)
    assert (split.images[0] == np.asarray(gray)[..., np.newaxis]).all()
    assert (split.images[1] == np.asarray(colour)).all()


def test_sixteen_bits_are_scaled_not_clipped(folder):
    wide = np.array([[0, 255, 257], [32768, 65279, 65535]], np.uint16)
    split = decode_alone(make_files(folder, Image.fromarray(wide)), 96)
    assert split.images[0, ..., 0].tolist() == [[0, 1, 1], [128, 254, 255]]
    assert split.images.shape == (1, 2, 3, 1)


def test_transparency_is_white(folder):
    pixels = np.zeros((2, 2, 4), np.uint8)  # black, not to be seen
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[1, 1] = (0, 0, 0, 128)
    rgba = Image.fromarray(pixels)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((0, 0), 1)
    gray = Image.merge("LA", [Image.new("L", (2, 2), 7), Image.new("L", (2, 2), 0)])
    files = [to_bytes(rgba), to_bytes(palette, transparency=0), to_bytes(gray)]
    images = decode_alone(make_files(folder, *files), 96).images
    assert images[0].tolist() == [[[*RED], [*WHITE]], [[*WHITE], [127, 127, 127]]]
    assert images[1].tolist() == [[[*RED], [*WHITE]], [[*WHITE], [*WHITE]]]
    assert (images[2] == 255).all()
    only_gray = decode_alone(make_files(folder, to_bytes(gray)), 96)
    assert only_gray.images.shape == (1, 2, 2, 1) and (only_gray.images == 255).all()


def test_cmyk_becomes_the_colour_that_is_seen(folder):
    image = Image.new("RGB", (16, 16), RED).convert("CMYK")
    split = decode_alone(make_files(folder, image, suffix=".jpg", quality=95), 96)
    assert np.abs(split.images[0].astype(int) - RED).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(folder, orientation, file_format):
    upright = Image.new("RGB", (16, 24), (0, 0, 255))
    upright.paste(RED, (0, 0, 8, 12))  # the mark belongs to the upper left
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    method = undo.get(orientation, decode._TRANSPOSES.get(orientation))
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = to_bytes(stored, file_format, exif=exif)
    images = decode_alone(make_files(folder, content), 96).images
    assert images.shape == (1, 24, 16, 3)
    assert np.abs(images[0, 2:10, 2:6].astype(int) - RED).max() < 40
    assert images[0, 14:, :, 0].max() < 100 and images[0, :, 10:, 0].max() < 100


def sideways(orientation=6):
    """Returns an image as a camera that was held upright stores it, and its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.new("RGB", (16, 24), (0, 0, 255))
    upright.paste(RED, (0, 0, 8, 12))  # the mark belongs to the upper left
    return upright.transpose(Image.Transpose.ROTATE_90), exif


def insert_chunk(png, name, content, *, late):
    at = png.rindex(b"IEND") - 4 if late else 33  # after the header's chunk
    return png[:at] + png_chunk(name, content) + png[at:]


XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf tiff:Orientation='6'/></x:xmpmeta>"


def orientation_files():
    image, exif = sideways()
    png, raw = to_bytes(image), exif.tobytes()
    for name, content in (("exif", raw), ("APP1", raw)):
        lines = "".join(content.hex()[i : i + 72] + "\n" for i in range(0, len(content.hex()), 72))
        text = f"\n{name.lower()}\n{len(content):8}\n{lines}".encode()
        profile = b"Raw profile type " + name.encode() + b"\0"
        for late in (False, True):
            yield (
                f"zTXt {name} {late}",
                insert_chunk(png, b"zTXt", profile + b"\0" + zlib.compress(text), late=late),
            )
            yield f"tEXt {name} {late}", insert_chunk(png, b"tEXt", profile + text, late=late)
    for late in (False, True):
        yield f"eXIf {late}", insert_chunk(png, b"eXIf", raw.removeprefix(b"Exif\0\0"), late=late)
        itxt = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
        yield f"XMP in PNG {late}", insert_chunk(png, b"iTXt", itxt, late=late)
    yield "XMP in JPEG", to_bytes(image, "JPEG", xmp=XMP, quality=95)
    yield "XMP in WebP", to_bytes(image, "WEBP", xmp=XMP, lossless=True)
    yield "TIFF", to_bytes(image, "TIFF", tiffinfo={0x0112: 6})
    yield "AVIF", to_bytes(image, "AVIF", exif=exif, quality=95)


ORIENTATION = dict(orientation_files())


@pytest.mark.parametrize("kind", ORIENTATION)
def test_orientation_is_applied_wherever_a_file_keeps_it(folder, kind):
    images = decode_alone(make_files(folder, ORIENTATION[kind]), 96).images
    assert images.shape == (1, 24, 16, 3)
    assert np.abs(images[0, 2:10, 2:6].astype(int) - RED).max() < 60
    assert images[0, 15:, :, 0].max() < 100 and images[0, :, 11:, 0].max() < 100


@pytest.mark.parametrize(
    "profile", [b"not\nhexadecimal\n4\nzz", b"\nexif\n4\n00000000", XMP.replace(b"6", b"9")]
)
def test_a_broken_profile_turns_nothing(folder, profile):
    image, _ = sideways()
    text = b"Raw profile type exif\0" + profile
    images = decode_alone(
        make_files(folder, insert_chunk(to_bytes(image), b"tEXt", text, late=False)), 96
    ).images
    assert (images[0] == np.asarray(image)).all()


def gray_png(values, bits, key):
    """Returns a gray PNG of so many bits, in which the value `key` is transparent."""
    height, width = values.shape
    if bits == 16:
        rows = values.astype(">u2").view(np.uint8)
    else:
        rows = np.packbits(
            np.unpackbits(values[..., None], axis=2)[..., -bits:].reshape(height, -1), 1
        )
    header = struct.pack(">2I5B", width, height, bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = (
        (b"IHDR", header),
        (b"tRNS", struct.pack(">H", key)),
        (b"IDAT", pixels),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_gray_is_white_in_any_number_of_bits(folder, bits):
    highest = 2**bits - 1
    values = np.array([[0, highest], [highest, 0]], np.uint16 if bits == 16 else np.uint8)
    images = decode_alone(make_files(folder, gray_png(values, bits, key=0)), 96).images
    assert (images == 255).all()
    images = decode_alone(make_files(folder, gray_png(values, bits, key=highest)), 96).images
    assert images[0, ..., 0].tolist() == [[0, 255], [255, 0]]


def test_a_transparent_colour_of_16_bits_is_white(folder):
    header = struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0)
    row = struct.pack(">6H", 65535, 0, 0, 0, 65535, 0)
    key = struct.pack(">3H", 65535, 0, 0)
    pixels = zlib.compress(b"\0" + row)
    chunks = ((b"IHDR", header), (b"tRNS", key), (b"IDAT", pixels), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    images = decode_alone(make_files(folder, png), 96).images
    assert images[0].tolist() == [[[255, 255, 255], [0, 255, 0]]]


OTHERS = {".tif": "TIFF", ".jfif": "JPEG", ".jpe": "JPEG", ".ppm": "PPM", ".avif": "AVIF"}


@pytest.mark.parametrize("suffix", OTHERS)
def test_other_formats_of_photos_are_read(folder, suffix):
    image = random_image(4, 4).resize((32, 32), Image.Resampling.BICUBIC)
    content = to_bytes(image, OTHERS[suffix], **({"quality": 95} if suffix[1] in "ja" else {}))
    images = decode_alone(make_files(folder, content, suffix=suffix), 96).images
    assert np.abs(images[0].astype(int) - np.asarray(image)).mean() < 4


def test_heic_is_read_with_pillow_heif_and_named_without(folder, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    image = random_image(4, 4).resize((64, 64), Image.Resampling.BICUBIC)
    files = make_files(folder, to_bytes(image, "HEIF", quality=95), suffix=".heic")
    decode._readable_formats.cache_clear()
    assert np.abs(decode_alone(files, 96).images[0].astype(int) - np.asarray(image)).mean() < 6
    without = tuple(name for name in decode._readable_formats() if name != "HEIF")
    monkeypatch.setattr(decode, "_readable_formats", lambda: without)
    with pytest.raises(InputError, match=r"0.heic \(HEIC, which needs pillow-heif: pip install"):
        decode_alone(files, 96)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.full((8, 8), 0.5, np.float32)),
        Image.fromarray(np.full((8, 8), 1 << 20, np.int32)),
    ],
    ids=["floats", "32 bits"],
)
def test_pixels_whose_range_is_not_known_are_bad(folder, image):
    with pytest.raises(InputError, match="whose range is not known"):
        decode_alone(make_files(folder, to_bytes(image, "TIFF"), suffix=".tif"), 96)


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (np.eye(8, dtype=np.uint8), "1 in train"),
        (np.arange(64, dtype=np.uint16).reshape(8, 8) * 65, "16 in train"),
        (np.arange(64, dtype=np.uint8).reshape(8, 8) // 4, "15 in train"),
    ],
    ids=["a mask", "12 bits of 16", "4 bits of 8"],
)
def test_files_that_would_be_black_are_refused(folder, pixels, told):
    image, bright = Image.fromarray(pixels), random_image(8, 8, 1)
    with pytest.raises(InputError, match=told):
        decode_splits(
            make_splits(folder / "all", train=[image], validation=[image], test=[image]), 8
        )
    with pytest.raises(InputError, match="255 in train|25. in train"):
        splits = make_splits(folder / "test", train=[bright], validation=[bright], test=[image])
        decode_splits(splits, 8)


def test_decoded_images_keep_the_paths_of_their_files(folder):
    splits = make_splits(
        folder, train=[random_image(), b"bad"], validation=[random_image()], test=[random_image()]
    )
    decoded = decode_splits(splits, 96, skip_bad_images=True)
    assert decoded.train.names.tolist() == ["cat/0.png"]
    assert decoded.train.take(np.array([0])).names.tolist() == ["cat/0.png"]


def test_gif_gives_its_first_frame(folder):
    frames = [Image.new("RGB", (6, 6), colour) for colour in (RED, (0, 0, 255))]
    content = to_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    split = decode_alone(make_files(folder, content, suffix=".gif"), 96)
    assert (split.images[0] == RED).all()


def test_content_counts_and_not_the_suffix(folder):
    split = decode_alone(make_files(folder, to_bytes(random_image(), "BMP"), suffix=".jpg"), 96)
    assert (split.images[0] == np.asarray(random_image())).all()


# --- Sizes ----------------------------------------------------------------------------------


def test_one_size_that_fits_is_kept(folder):
    images = [random_image(10, 16, seed=seed) for seed in range(3)]
    split = decode_alone(make_files(folder, *images), 16)
    assert split.images.shape == (3, 10, 16, 3)
    assert (split.images == np.stack([np.asarray(image) for image in images])).all()


@pytest.mark.parametrize("sizes", [[(20, 40), (20, 40)], [(8, 8), (12, 8)]])
def test_other_sizes_are_squished_with_antialiasing(folder, sizes):
    images = [random_image(*size) for size in sizes]
    split = decode_alone(make_files(folder, *images), 16)
    expected = [image.resize((16, 16), Image.Resampling.BILINEAR) for image in images]
    assert (split.images == np.stack([np.asarray(image) for image in expected])).all()


def test_large_jpeg_is_shrunk_by_its_decoder_and_looks_the_same(folder):
    image = random_image(12, 12).resize((900, 600), Image.Resampling.BICUBIC)
    split = decode_alone(make_files(folder, image, suffix=".jpg", quality=95), 32)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BOX)).astype(int)
    assert np.abs(split.images[0] - expected).mean() < 4


def test_fine_stripes_become_gray(folder):
    # Without antialiasing every fourth column would be taken: all black.
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, 1::2] = 255
    files = make_files(folder, Image.fromarray(stripes))
    arrays = Split(stripes[np.newaxis, ..., np.newaxis], np.zeros(1, np.int64))
    for split in (files, arrays):
        small = decode_alone(split, 16).images
        assert small.shape == (1, 16, 16, 1)
        assert small.min() > 100 and small.max() < 155


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_that_fit_are_the_same_object(channels):
    images = np.zeros((4, 28, 20, channels), np.uint8)
    split = Split(images, np.zeros(4, np.int64))
    assert decode_alone(split, 28).images is images
    assert decode_alone(split, 27).images.shape == (4, 27, 27, channels)


def test_order_is_kept_and_each_file_is_decoded_once(folder, monkeypatch):
    images = [Image.new("L", (5, 5), value) for value in range(200)]
    read, lock = [], threading.Lock()
    inner = decode._read_pixels

    def spy(path, *arguments):
        with lock:
            read.append(path)
        return inner(path, *arguments)

    monkeypatch.setattr(decode, "_read_pixels", spy)
    files = make_files(folder, *images)
    assert decode_alone(files, 96).images[:, 0, 0, 0].tolist() == list(range(200))
    assert sorted(read) == sorted(files.images)


# --- One geometry for a data set ------------------------------------------------------------


def make_splits(folder, **images):
    """Saves lists of images as files, a list for each split: train, validation, test."""
    parts = []
    for name in ("train", "validation", "test"):
        (folder / name / "cat").mkdir(parents=True)
        parts.append(make_files(folder / name, *images[name]))
    return Splits(*parts, ("cat",), "pets", "pets")


MIXED = {
    "sizes": ([(10, 14)], [(10, 14)], [(12, 8)]),  # (H, W) of the images of each split
    "a large one": ([(10, 14)], [(10, 14)], [(10, 40)]),
    "within a split": ([(10, 14), (14, 10)], [(10, 14)], [(10, 14)]),
}


@pytest.mark.parametrize("sizes", MIXED.values(), ids=MIXED)
def test_splits_of_mixed_sizes_come_out_with_one_geometry(folder, sizes):
    images = {
        name: [random_image(*size) for size in of_part]
        for name, of_part in zip(("train", "validation", "test"), sizes, strict=True)
    }
    decoded = decode_splits(make_splits(folder, **images), 16)
    assert decoded.geometry == Geometry(16, 16, 3)
    for name, split in decoded.parts().items():
        squashed = [image.resize((16, 16), Image.Resampling.BILINEAR) for image in images[name]]
        assert (split.images == np.stack([np.asarray(image) for image in squashed])).all()


@pytest.mark.parametrize("colour", ["train", "validation", "test"])
def test_one_colour_image_makes_three_channels_in_every_split(folder, colour):
    names = ("train", "validation", "test")
    images = {name: [random_image(channels=3 if name == colour else 1)] for name in names}
    decoded = decode_splits(make_splits(folder, **images), 96)
    assert decoded.geometry == Geometry(12, 12, 3)
    for name, split in decoded.parts().items():
        assert (split.images[0] == np.asarray(images[name][0].convert("RGB"))).all()


def test_bad_files_have_no_say_in_the_geometry(folder):
    gray = random_image(channels=1)
    splits = make_splits(folder, train=[gray, b"bad"], validation=[gray], test=[gray, b""])
    assert measure_geometry(splits.parts().values(), 96) == Geometry(12, 12, 1)
    decoded = decode_splits(splits, 96, skip_bad_images=True)
    assert decoded.geometry == Geometry(12, 12, 1)
    assert [part.num_images for part in decoded.parts().values()] == [1, 1, 1]


def test_geometry_is_measured_as_it_is_decided(folder):
    images = [random_image(10, 14)], [random_image(10, 14, 1)], [random_image(30, 9)]
    splits = make_splits(folder, **dict(zip(("train", "validation", "test"), images, strict=True)))
    assert measure_geometry(splits.parts().values(), 16) == decode_splits(splits, 16).geometry
    arrays = Split(np.zeros((2, 9, 7, 1), np.uint8), np.zeros(2, np.int64))
    assert measure_geometry([arrays], 16) == Geometry(9, 7, 1)
    assert measure_geometry([arrays, splits.train], 16) == Geometry(16, 16, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_single_photo_equals_itself_within_the_data_set(folder, suffix, channels):
    # A photo alone would keep its own size and colours: the geometry of the run is what counts.
    exif = Image.Exif()
    exif[0x0112] = 6
    photos = [random_image(40, 30, 1), random_image(20, 20, channels), random_image(12, 50, 1)]
    (folder / "parts").mkdir()
    parts = {"train": photos[:1], "validation": photos[1:2], "test": photos[2:]}
    for name, images in parts.items():
        contents = [to_bytes(x, "PNG" if suffix == ".png" else "JPEG", exif=exif) for x in images]
        parts[name] = contents
    decoded = decode_splits(make_splits(folder / "parts", **parts), 24)
    assert decoded.geometry == Geometry(24, 24, channels)
    for name, split in decoded.parts().items():
        alone = decode_split(make_files(folder, parts[name][0], suffix=suffix), decoded.geometry)
        assert (alone.images == split.images).all()
        assert alone.images.shape == (1, 24, 24, channels)


def test_arrays_are_brought_to_a_geometry_as_files_are(folder):
    image = random_image(30, 20)
    arrays = Split(np.asarray(image)[np.newaxis], np.zeros(1, np.int64))
    for geometry in (Geometry(30, 20, 3), Geometry(16, 16, 3), Geometry(16, 12, 1)):
        from_files = decode_split(make_files(folder, image), geometry).images
        assert from_files.shape == (1, *geometry.shape)
        assert (decode_split(arrays, geometry).images == from_files).all()
    gray = Split(arrays.images[..., :1], arrays.labels)
    assert (decode_split(gray, Geometry(30, 20, 3)).images == gray.images).all()


def test_a_geometry_survives_json():
    geometry = Geometry(28, 20, 1)
    assert Geometry(**json.loads(json.dumps(geometry.to_json()))) == geometry


# --- Images that are not square --------------------------------------------------------------


def ramp(height, width):
    """An RGB image whose red is its column and whose green is its row, four levels a pixel."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([4 * columns, 4 * rows, 0 * rows], axis=2).astype(np.uint8))


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20), (33, 20)])
def test_crop_shows_the_middle_and_pad_the_whole_with_its_edges(folder, height, width):
    side, longest = min(height, width), max(height, width)
    photo = ramp(height, width)
    files = make_files(folder, photo)
    cropped = decode_split(files, Geometry(side, side, 3, "crop")).images[0]
    top, left = (height - side) / 2, (width - side) / 2
    middle = np.asarray(
        photo.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    )
    assert np.abs(cropped.astype(int) - middle).max() <= 1
    padded = decode_split(files, Geometry(longest, longest, 3, "pad")).images[0]
    top, left = (longest - height) // 2, (longest - width) // 2
    assert (padded[top : top + height, left : left + width] == np.asarray(photo)).all()
    edges = np.pad(
        np.asarray(photo),
        ((top, longest - height - top), (left, longest - width - left), (0, 0)),
        "edge",
    )
    assert (padded == edges).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(1, 300), (300, 1), (7, 8), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_fit_takes_every_shape_and_keeps_one_colour(fit, size, channels):
    image = np.full((*size, channels), 77, np.uint8)
    for geometry in (Geometry(32, 32, channels, fit), Geometry(9, 40, 4 - channels, fit)):
        pixels = fit_pixels(image, geometry)
        assert pixels.dtype == np.uint8 and pixels.shape == geometry.shape
        assert (pixels == 77).all()
        picture = Image.fromarray(image[..., 0] if channels == 1 else image)
        assert (fit_pixels(picture, geometry) == pixels).all()


AUTOS = {
    "squares": ([(90, 90), (80, 80)], False, Geometry(64, 64, 3, "squash")),
    "small and gray": ([(28, 20), (60, 64)], True, Geometry(64, 64, 1, "squash")),
    "gray and large": ([(90, 80)], True, Geometry(64, 64, 1, "pad")),
    "in colour": ([(30, 20), (20, 20)], False, Geometry(64, 64, 3, "pad")),
    "of one size": ([(30, 20)], False, Geometry(30, 30, 3, "pad")),
}


@pytest.mark.parametrize(("sizes", "is_gray", "expected"), AUTOS.values(), ids=AUTOS)
def test_auto_pads_photos_and_leaves_squares_and_drawings(sizes, is_gray, expected):
    shapes = [Shape(size, is_gray) for size in sizes]
    assert choose_geometry(shapes, 64, "auto") == expected
    for fit in FITS:
        assert choose_geometry(shapes, 64, fit).fit == fit
    cropped = choose_geometry(shapes[:1], 64, "crop")
    assert cropped.height == cropped.width == min(64, *sizes[0])


@pytest.mark.parametrize(
    ("fit", "told"),
    [("auto", "padded"), ("crop", "50%"), ("pad", "padded"), ("squash", "squashed")],
)
def test_images_that_are_not_square_are_counted_and_said(folder, fit, told):
    photos = [random_image(20, 40), random_image(40, 20), random_image(30, 30)]
    splits = make_splits(folder, train=photos, validation=photos[:2], test=photos[2:])
    provenance = decode_splits(splits, 16, fit=fit).provenance
    assert told in provenance and "4 of 6 images are not square" in provenance
    arrays = Split(np.zeros((5, 20, 40, 3), np.uint8), np.zeros(5, np.int64))
    in_arrays = Splits(arrays, arrays, arrays.take(np.arange(0)), ("a",), "n", "p")
    decoded = decode_splits(in_arrays, 96, fit=fit)
    assert told in decoded.provenance and "10 of 10 images" in decoded.provenance
    squares = decode_splits(
        make_splits(folder / "cat", train=photos[2:], validation=photos[2:], test=photos[2:]),
        16,
        fit=fit,
    )
    assert "square" not in squares.provenance


def test_a_geometry_decided_before_is_taken_as_it_is(folder):
    photos = [random_image(20, 40)]
    splits = make_splits(folder, train=photos, validation=photos, test=photos)
    before = Geometry(10, 14, 1, "squash")
    decoded = decode_splits(splits, 16, fit="crop", geometry=before)
    assert decoded.geometry == before and decoded.test.images.shape == (1, 10, 14, 1)


def test_shrunk_images_are_squashed_only_where_they_are_larger():
    images = np.stack([np.asarray(random_image(20, 14, seed=seed)) for seed in range(3)])
    assert shrink_images(images, 20) is images
    small = shrink_images(images, 16)
    expected = [
        np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR))
        for image in images
    ]
    assert (small == np.stack(expected)).all()


def test_readable_images_come_with_their_places(folder):
    files = make_files(folder, random_image(), b"", random_image(seed=1), b"bad")
    images, indices, sizes, bad = decode_readable(files, 96)
    assert indices.tolist() == [0, 2] and sizes.tolist() == [[12, 12]] * 2
    assert (images == np.stack([np.asarray(random_image(seed=seed)) for seed in (0, 1)])).all()
    assert [line.split(" (")[0] for line in bad] == ["cat/1.png", "cat/3.png"]
    with pytest.raises(InputError, match="2 that do not"):
        decode_readable(make_files(folder, b"", b"bad"), 96)


# --- Memory ---------------------------------------------------------------------------------


def test_large_result_lies_in_a_file_without_a_name(folder, monkeypatch, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(decode.tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(decode, "usable_memory", lambda: 4 * 12 * 12 * 3 * 3 - 1)
    image = random_image()
    split = decode_alone(make_files(folder, image, image, b"bad"), 96, skip_bad_images=True)
    assert isinstance(split.images, np.memmap) and split.images.shape == (2, 12, 12, 3)
    assert (split.images == np.asarray(image)).all()
    assert list(temporary.iterdir()) == []
    monkeypatch.setattr(decode, "usable_memory", lambda: 4 * 12 * 12 * 3 * 2)
    assert type(decode_alone(make_files(folder, image, image), 96).images) is np.ndarray


def test_parts_lie_in_files_where_together_they_are_too_large(folder, monkeypatch):
    one = [random_image()]
    splits = make_splits(folder, train=one, validation=one, test=one)
    monkeypatch.setattr(decode, "usable_memory", lambda: 4 * 12 * 12 * 3 * 3 - 1)
    decoded = decode_splits(splits, 96)
    assert all(isinstance(split.images, np.memmap) for split in decoded.parts().values())
    monkeypatch.setattr(decode, "usable_memory", lambda: 4 * 12 * 12 * 3 * 3)
    decoded = decode_splits(splits, 96)
    assert {type(split.images) for split in decoded.parts().values()} == {np.ndarray}


def test_no_room_on_the_disk_is_told(folder, monkeypatch):
    monkeypatch.setattr(decode, "usable_memory", lambda: 0)
    usage = type(decode.shutil.disk_usage("/"))(10, 10, 0)
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda _: usage)
    array = Split(np.zeros((2, 9, 12, 3), np.uint8), np.zeros(2, np.int64))
    with pytest.raises(InputError, match="0.0 GB free .*TMPDIR"):
        decode_split(array, Geometry(12, 12, 3))
    bad = Image.new("L", (12, 12))
    split = decode_alone(make_files(folder, random_image(), bad), 96)
    assert isinstance(split.images, StreamedImages)
    path = folder / "cat/1.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="1.png does not decode .*cannot be left out"):
        split.images[1]


# --- Bad files ------------------------------------------------------------------------------


def make_bomb():
    # 60,000 x 60,000 pixels of one bit in a few hundred bytes.
    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">2I5B", 60_000, 60_000, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 100)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def make_flipped():
    content = bytearray(to_bytes(random_image()))
    content[len(content) // 2] ^= 1
    return bytes(content)


BAD = {
    "an empty file": b"",
    "not a PNG, JPEG, WebP, GIF, BMP, TIFF, PPM, AVIF or HEIC image": b"<html>404</html>",
    "truncated": to_bytes(random_image(40, 40))[:-2000],
    "checksum": make_flipped(),
    "too many pixels": make_bomb(),
}


def test_a_batch_of_streamed_images_costs_what_it_holds_not_what_there_is():
    count = 10**12  # an index of all of them would fill no memory
    asked = []

    def decode(indices):
        asked.append(indices.tolist())
        return np.zeros((len(indices), 2, 2, 1), np.uint8)

    images = StreamedImages(count, (2, 2, 1), decode, str)
    assert images[5].shape == images[-1].shape == (2, 2, 1)
    assert images[3:5].shape == images[[1, -2]].shape == (2, 2, 2, 1)
    assert images[count - 1 :].shape == (1, 2, 2, 1) and images[:0].shape == (0, 2, 2, 1)
    assert asked == [[5], [count - 1], [3, 4], [1, count - 2], [count - 1], []]
    few = StreamedImages(3, (2, 2, 1), decode, str)
    assert few[np.array([True, False, True])].shape == few[::2].shape == (2, 2, 2, 1)
    assert asked[-2:] == [[0, 2], [0, 2]]
    for outside in (count, -count - 1, np.array([0, count])):
        with pytest.raises(IndexError):
            images[outside]


@pytest.mark.parametrize("reason", BAD)
@pytest.mark.filterwarnings("error")
def test_bad_file_is_told_with_its_reason(folder, reason, capfd):
    files = make_files(folder, random_image(), BAD[reason])
    with pytest.raises(InputError) as caught:
        decode_alone(files, 96)
    message = str(caught.value)
    assert f"all 2 image files in {folder} should decode. Received: 1 that do not" in message
    assert (
        "cat/1.png (" in message
        and reason.lower() in message.lower()
        and "--skip-bad-images" in message
    )
    assert len(message.splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_just_too_many_pixels_counts_as_bad(folder, monkeypatch):
    # Pillow only warns between one and two times its limit.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="too many pixels"):
        decode_alone(make_files(folder, random_image(12, 12)), 96)


@pytest.mark.parametrize("file_format", ["TGA", "SGI", "ICO"])
def test_other_formats_are_never_opened(folder, file_format):
    content = to_bytes(random_image(16, 16), file_format)
    with pytest.raises(InputError, match="not a PNG, JPEG"):
        decode_alone(make_files(folder, content), 96)


def test_missing_file_is_bad(folder):
    files = make_files(folder, random_image(), random_image())
    (folder / "cat" / "1.png").unlink()
    with pytest.raises(InputError, match="1.png \\(No such file or directory\\)"):
        decode_alone(files, 96)


@pytest.mark.parametrize("number", [10, 13])
def test_at_most_ten_bad_files_are_named(folder, number):
    bad: list = []
    with pytest.raises(InputError) as caught:
        decode_alone(make_files(folder, *[b""] * number, random_image()), 96, bad=bad)
    message = str(caught.value)
    assert message.count(".png (") == 10 and f"{number} that do not" in message
    assert ("and 3 more" in message) == (number == 13)
    assert len(bad) == number and bad[0] == "cat/0.png (an empty file)"


def test_bad_files_are_skipped_on_request(folder):
    # One is found by its header, one by its pixels; the others keep their order and labels.
    pictures = [random_image(40, 40, seed=seed) for seed in range(5)]
    truncated = to_bytes(pictures[0], "JPEG")[:-500]
    files = make_files(folder, pictures[0], b"", pictures[2], truncated, pictures[4])
    files = Split(files.images, np.arange(5) % 2, files.root)
    files.labels[1], files.labels[3] = 0, 0
    bad: list = []
    split = decode_alone(files, 96, skip_bad_images=True, bad=bad)
    assert len(bad) == 2 and split.labels.tolist() == [0, 0, 0]
    expected = np.stack([np.asarray(pictures[index]) for index in (0, 2, 4)])
    assert (split.images == expected).all()


def test_class_left_empty_is_an_error(folder):
    files = make_files(folder, random_image(), b"", random_image())
    files = Split(files.images, np.array([0, 1, 0]), files.root)
    with pytest.raises(InputError, match="cat should have an image that decodes"):
        decode_alone(files, 96, skip_bad_images=True)
    with pytest.raises(InputError, match="cat should have an image that decodes"):
        decode_alone(make_files(folder, b"", b""), 96, skip_bad_images=True)


def test_all_splits_are_told_at_once_or_noted(tmp_path):
    for part in ("train", "validation", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(2):
                random_image().save(tmp_path / part / name / f"{index}.png")
        (tmp_path / part / "dog" / "bad.png").write_bytes(b"")
    splits = load_splits(str(tmp_path))
    with pytest.raises(InputError) as caught:
        decode_splits(splits, 96)
    assert "all 15 image files" in str(caught.value) and "3 that do not" in str(caught.value)
    assert all(f"{part}/dog/bad.png" in str(caught.value) for part in ("train", "test"))
    bad: list = []
    decoded = decode_splits(splits, 96, skip_bad_images=True, bad=bad)
    assert len(bad) == 3 and "4 training, 4 validation and 4 test" in decoded.provenance
    assert "left out 3 image files that do not decode: train/dog/bad.png" in decoded.provenance
    assert [s.num_images for s in (decoded.train, decoded.validation, decoded.test)] == [4, 4, 4]


def test_good_splits_keep_their_provenance():
    images, labels = np.zeros((4, 30, 30, 1), np.uint8), np.array([0, 1, 0, 1])
    split = Split(images, labels)
    decoded = decode_splits(Splits(split, split, split, ("a", "b"), "n", "p"), 15)
    assert decoded.origin == "p" and decoded.test.images.shape == (4, 15, 15, 1)


SEEDS = [
    to_bytes(random_image(), "PNG"),
    to_bytes(random_image(channels=4), "PNG"),
    to_bytes(random_image().convert("P"), "PNG"),
    to_bytes(random_image(), "JPEG"),
    to_bytes(random_image().convert("CMYK"), "JPEG"),
    to_bytes(random_image(), "BMP"),
    to_bytes(random_image(), "WEBP"),
    to_bytes(random_image(), "GIF"),
]


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_file_is_told_or_decoded(folder, data):
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        places = st.lists(st.integers(0, min(len(content), 400) - 1), min_size=1, max_size=8)
        for place in data.draw(places):
            content[place] = data.draw(st.integers(0, 255))
    try:
        split = decode_alone(make_files(folder, bytes(content)), 32)
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and "0.png (" in str(error)
    else:
        assert split.images.dtype == np.uint8 and len(split.images) == 1
