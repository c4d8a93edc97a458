"""TFRecord files of `tf.train.Example`, read without TensorFlow.

https://www.tensorflow.org/tutorials/load_data/tfrecord has the file: for each record its length,
the length's checksum, the record, its checksum. A record is a protocol buffer; of its wire format
(https://protobuf.dev/programming-guides/encoding) as much is read here as an `Example` has.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from typing import IO

from transfer.datasets.formats.record_format import ByteRanges, Found, RecordFormat
from transfer.errors import InputError
from transfer.storage.remote import open_stored

_IMAGE_KEYS = (b"image/encoded", b"image")
_LABEL_KEYS = (b"image/class/label", b"label")
_MOST_RECORD_BYTES = 1 << 30
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = 0xFFFFFFFF


def scan_tfrecord(name: str, contents: bool, left_out: Counter[str]) -> Iterator[Found]:
    """Yields the images of a TFRecord file in order; see `RecordFormat`.

    Raises:
        InputError: it is compressed, damaged or cut off, or a record is no `Example`.
    """
    with open_stored(name) as file:
        for number, (start, record) in enumerate(_records(name, file)):
            try:
                (at, end), label = _parse_example(record)
            except (ValueError, IndexError) as error:
                raise InputError(
                    f"{name}, record {number} should be a tf.train.Example with image/encoded and "
                    f"image/class/label. Received: {error}."
                ) from error
            content = record[at:end] if contents else None
            yield Found(start + at, end - at, label, f"#{number}", content)


def _records(name: str, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    # Each record with its place in the file.
    position = 0
    while header := file.read(12):
        if len(header) == 12:
            length, checksum = struct.unpack("<QI", header)
            if checksum != _masked_crc32c(header[:8]) or length > _MOST_RECORD_BYTES:
                raise InputError(
                    f"{name} should be an uncompressed TFRecord file. Received: a length at byte "
                    f"{position:,} that is not that of a record; it is damaged or of another kind."
                )
            record = file.read(length + 4)
            if len(record) == length + 4:
                yield position + 12, record[:-4]
                position += 12 + len(record)
                continue
        raise InputError(f"{name} is cut off in the record at byte {position:,}.")


def _make_crc32c_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _make_crc32c_table()


def _masked_crc32c(content: bytes) -> int:
    crc = _MASK
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= _MASK
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & _MASK


# --- The wire format ------------------------------------------------------------------------


def _parse_example(record: bytes) -> tuple[tuple[int, int], int | str | None]:
    # Returns where the image's bytes begin and end, and the label.
    found = {key: (start, end) for key, start, end in _features(record)}
    image_key = next((key for key in _IMAGE_KEYS if key in found), None)
    image = _first_bytes(record, *found[image_key]) if image_key else None
    if image is None:
        raise ValueError(f"no image in {', '.join(map(repr, list(found)[:5])) or 'it'}")
    label_key = next((key for key in _LABEL_KEYS if key in found), None)
    return image, _parse_label(record, *found[label_key]) if label_key else None


def _features(record: bytes) -> Iterator[tuple[bytes, int, int]]:
    # Example.features.feature: each name, and where its `Feature` begins and ends.
    for start, end in _parts(record, 0, len(record), 1):
        for entry, entry_end in _parts(record, start, end, 1):
            keys = list(_parts(record, entry, entry_end, 1))
            values = list(_parts(record, entry, entry_end, 2))
            if keys and values:
                yield record[slice(*keys[-1])], *values[-1]


def _first_bytes(record: bytes, start: int, end: int) -> tuple[int, int] | None:
    # Feature.bytes_list.value[0].
    for values, values_end in _parts(record, start, end, 1):
        return next(_parts(record, values, values_end, 1), None)
    return None


def _parse_label(record: bytes, start: int, end: int) -> int | str | None:
    for values, values_end in _parts(record, start, end, 3):  # int64_list
        for _, kind, value, value_end in _fields(record, values, values_end):
            number = value if kind == _VARINT else _varint(record, value, value_end)[0]
            if number >= 1 << 63:
                raise ValueError(f"label {number - (1 << 64)}")
            return number
    if place := _first_bytes(record, start, end):
        return record[slice(*place)].decode("utf-8", "surrogateescape")
    return None


def _parts(record: bytes, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    # Where the fields of a number begin and end, those of other kinds left out.
    for number, kind, value, value_end in _fields(record, start, end):
        if number == wanted and kind == _BYTES:
            yield value, value_end


def _fields(record: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    # Number and kind of each field, where its bytes begin and end; of a varint its value first.
    while at < end:
        tag, at = _varint(record, at, end)
        kind, value = tag & 7, at
        if kind == _VARINT:
            value, at = _varint(record, at, end)
        elif kind == _BYTES:
            size, value = _varint(record, at, end)
            at = value + size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at > end:
            raise ValueError("a field that is longer than what holds it")
        yield tag >> 3, kind, value, at


def _varint(record: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = record[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
    raise ValueError("a number without an end")


FORMAT = RecordFormat("TFRecord", scan_tfrecord, ByteRanges)
