r"""Frames of a run file: lines with a length and a checksum, so that a torn end is told.

A frame is ``LLLLLLLL CCCCCCCC {...}\\n``: the length of the JSON text in bytes and its CRC-32,
eight hexadecimal digits each. ``cut -c19- FILE`` is JSON lines.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX_BYTES = 18
_FIELD_BYTES = 8


def frame(record: Mapping[str, Any]) -> bytes:
    """Returns a record as one line of the file."""
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %08x %s\n" % (len(body), zlib.crc32(body), body)


def parse_frames(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Returns the whole records at the beginning of ``data``, and how many bytes they take.

    It ends at the first frame that is torn or damaged: what came after it was written later,
    and each record only says what changed since the one before.
    """
    records: list[dict[str, Any]] = []
    at = 0
    while (body := _body_at(data, at)) is not None:
        try:
            record = json.loads(body)
        except ValueError:
            break
        if not isinstance(record, dict):
            break
        records.append(record)
        at += PREFIX_BYTES + len(body) + 1
    return records, at


def _body_at(data: bytes, at: int) -> bytes | None:
    """Returns the text of the frame at ``at``; None if there is no whole one."""
    prefix = data[at : at + PREFIX_BYTES]
    length, checksum = _number(prefix[:_FIELD_BYTES]), _number(prefix[9:17])
    if length is None or checksum is None or prefix[8:9] + prefix[17:] != b"  ":
        return None
    begin = at + PREFIX_BYTES
    body = data[begin : begin + length]
    whole = len(body) == length and data[begin + length : begin + length + 1] == b"\n"
    return body if whole and zlib.crc32(body) == checksum else None


def _number(digits: bytes) -> int | None:
    # int() alone would take "+1234567" and "0x123456", too.
    if len(digits) != _FIELD_BYTES or digits.strip(b"0123456789abcdef"):
        return None
    return int(digits, 16)
