"""Which way up a picture is: EXIF's orientation, wherever a file keeps it.

Cameras write EXIF into JPEG; programs move it into a PNG's eXIf chunk, before or after the pixels,
into a PNG's text, or leave it in XMP alone.
"""

import re
import struct
from typing import IO

from PIL import Image, ImageFile

_TAG = 0x0112
_TEXT_PROFILES = ("Raw profile type exif", "Raw profile type APP1")  # as ImageMagick writes them
_PROFILES = ("exif", *_TEXT_PROFILES, "XML:com.adobe.xmp", "xmp")
_XMP_ORIENTATION = re.compile(r"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")
_LATE_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_MOST_CHUNKS = 1 << 20
UPRIGHT = 1


def read_orientation(image: ImageFile.ImageFile) -> int:
    """Returns EXIF's orientation, 1 to 8, of an image as Pillow will decode it.

    TIFF is turned by Pillow itself: 1. EXIF goes before XMP. A PNG that has something to say after
    its pixels should be loaded before. Raises what a broken profile makes Pillow raise.
    """
    if image.format == "TIFF" or not any(profile in image.info for profile in _PROFILES):
        return UPRIGHT
    if "exif" not in image.info:
        for profile in _TEXT_PROFILES:
            if profile in image.info:
                image.info["exif"] = _from_text(image.info[profile])
    # Not the PNG's own method, which would decode it to its end.
    orientation = Image.Image.getexif(image).get(_TAG) or _from_xmp(image)
    return orientation if orientation in range(1, 9) else UPRIGHT


def _from_text(profile: str | bytes) -> bytes:
    # Lines: empty, the profile's name, its length, then hexadecimal digits.
    text = profile.decode("latin-1") if isinstance(profile, bytes) else str(profile)
    return bytes.fromhex("".join(text.split("\n")[3:]))


def _from_xmp(image: Image.Image) -> int:
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or ""
    text = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    found = _XMP_ORIENTATION.search(text)
    return int(found[1]) if found else UPRIGHT


def has_late_profile(file: IO[bytes]) -> bool:
    """Returns whether a PNG has text or EXIF after its pixels, which is found by decoding it.

    Args:
        file: the PNG, open; its position is kept.
    """
    start = file.tell()
    try:
        file.seek(8)
        seen_pixels = False
        for _ in range(_MOST_CHUNKS):
            header = file.read(8)
            if len(header) < 8:
                return False
            length, name = struct.unpack(">I4s", header)
            if seen_pixels and name in _LATE_CHUNKS:
                return True
            seen_pixels |= name == b"IDAT"
            file.seek(length + 4, 1)
        return False
    finally:
        file.seek(start)
