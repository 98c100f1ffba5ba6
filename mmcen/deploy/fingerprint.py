"""A checksum of an ONNX file, which has none of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

METADATA_FIELD = 14  # of the file's outermost message, ModelProto.metadata_props
WIDTHS = {1: 8, 5: 4}  # bytes of a value by its wire type; 0 is a varint, 2 has a length


def fingerprint(data: bytes, facts: str) -> str:
    """Hash a file without its metadata, together with the text of the facts in the metadata.

    Args:
        data: The file: a protobuf message.
        facts: Text that is kept in the metadata.

    Raises:
        ValueError: The file is no sequence of fields.
    """
    found = hashlib.sha256(facts.encode())
    for number, field in _fields(data):
        if number != METADATA_FIELD:
            found.update(field)
    return found.hexdigest()


def _fields(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each outermost field."""
    view, start = memoryview(data), 0
    while start < len(data):
        key, end = _varint(data, start)
        kind = key & 7
        if kind == 0:
            _, end = _varint(data, end)
        elif kind == 2:
            length, end = _varint(data, end)
            end += length
        elif kind in WIDTHS:
            end += WIDTHS[kind]
        else:
            end = len(data) + 1
        if end > len(data):
            raise ValueError('the file is cut off or damaged')
        yield key >> 3, view[start:end]
        start = end


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where the next field starts."""
    value = 0
    for i, byte in enumerate(data[start : start + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, start + i + 1
    raise ValueError('the file is cut off or damaged')
