"""Perfetto's trace format on the wire: the few messages that a trace of counters needs.

Protocol buffers by hand, since the format is this small and stable, and its Python package
would be the largest dependency by far. Field numbers: perfetto/protos/trace/trace_packet.proto,
track_event/track_event.proto, track_event/track_descriptor.proto and those beside them.
"""

from __future__ import annotations

_SEQUENCE_ID = 1
_BYTES_UNIT = 3  # CounterDescriptor.Unit.UNIT_SIZE_BYTES
_MASK = (1 << 64) - 1

SLICE_BEGIN, SLICE_END, INSTANT, COUNTER = 1, 2, 3, 4  # TrackEvent.Type


def packet(timestamp_ns: int | None, *, event: bytes = b"", track: bytes = b"") -> bytes:
    """Returns a TracePacket in its place in a Trace."""
    body = b"" if timestamp_ns is None else _number(8, timestamp_ns)
    body += _bytes(11, event) if event else b""
    body += _bytes(60, track) if track else b""
    return _bytes(1, body + _number(10, _SEQUENCE_ID))


def process_track(uuid: int, pid: int, name: str, start_ns: int, order: int) -> bytes:
    """Returns a TrackDescriptor of a process."""
    process = _number(1, pid) + _text(6, name) + _number(7, start_ns)
    return _number(1, uuid) + _bytes(3, process) + _rank(order)


def plain_track(uuid: int, name: str, parent_uuid: int | None = None, order: int = 0) -> bytes:
    """Returns a TrackDescriptor of slices and instants, or of what others are below."""
    parent = b"" if parent_uuid is None else _number(5, parent_uuid)
    return _number(1, uuid) + _text(2, name) + parent + _rank(order)


def counter_track(uuid: int, name: str, parent_uuid: int, order: int = 0, scale: str = "") -> bytes:
    """Returns a TrackDescriptor of a counter of bytes.

    Those below the same track with the same ``scale`` are drawn to one scale.
    """
    kind = _number(3, _BYTES_UNIT) + (_text(7, scale) if scale else b"")
    return plain_track(uuid, name, parent_uuid, order) + _bytes(8, kind)


def counter(track_uuid: int, value: int) -> bytes:
    """Returns a TrackEvent that sets a counter."""
    return _number(9, COUNTER) + _number(11, track_uuid) + _number(30, value)


def event(kind: int, track_uuid: int, name: str = "", notes: dict[str, str] | None = None) -> bytes:
    """Returns a TrackEvent that begins or ends a slice, or is an instant."""
    told = b"".join(
        _bytes(4, _text(10, key) + _text(6, value)) for key, value in (notes or {}).items()
    )
    named = _text(23, name) if name else b""
    return _number(9, kind) + _number(11, track_uuid) + named + told


def _rank(order: int) -> bytes:
    # ChildTracksOrdering EXPLICIT (3) for what is below, and the rank among its siblings.
    return _number(11, 3) + _number(12, order)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value & _MASK)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode("utf-8", "backslashreplace"))


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 (seven bits a byte)
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
