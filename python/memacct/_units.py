"""Sizes and times as people write and read them; everywhere else they are ints of bytes."""

from __future__ import annotations

import re

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

# Compiled when it is first needed (re keeps it): many that import memacct parse no size.
_SIZE = r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?)(?P<binary>i)?b?\s*"
_TIME = r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|min|h|)\s*"
_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_FACTORS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
_UNITS = ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))


def parse_bytes(value: int | str) -> int:
    """Returns a size in bytes.

    Args:
        value: an int, or text such as "268435456", "256MiB", "1.5GiB", "80g". All units
            are binary, as memory is (1 k = 1024).

    Raises:
        ValueError: the value is negative, not a size, or not a whole number of bytes.
    """
    allowed = "a size that is not negative, such as 268435456, '256MiB' or '1.5GiB'"
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{value!r} is not {allowed}")  # noqa: TRY004 (one error for callers)
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value!r} is not {allowed}")
        return value
    match = re.fullmatch(_SIZE, value, re.IGNORECASE | re.ASCII)
    if match is None or (match["binary"] and not match["unit"]):
        raise ValueError(f"{value!r} is not {allowed}")
    whole, _, fraction = match["number"].partition(".")
    factor = _FACTORS[match["unit"].lower()]
    # In integers: floats lose bytes beyond 2**53.
    scaled = int(whole + fraction) * factor
    size, rest = divmod(scaled, int("1" + "0" * len(fraction)))
    if rest:
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return size


def parse_seconds(value: float | str) -> float:
    """Returns a time in seconds.

    Args:
        value: a number, or text such as "120", "10s", "500ms", "2m", "1h".

    Raises:
        ValueError: the value is negative, or no time.
    """
    allowed = "a time that is not negative, such as 120, '10s', '500ms' or '2m'"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{value!r} is not {allowed}")
        return float(value)
    match = re.fullmatch(_TIME, value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not {allowed}")
    return float(match["number"]) * _SECONDS[match["unit"]]


def format_bytes(value: int) -> str:
    """Returns a size for people: the largest unit that leaves at least 1, two decimals."""
    sign, size = ("-", -value) if value < 0 else ("", value)
    for factor, name in _UNITS:
        if size >= factor:
            return f"{sign}{size / factor:.2f} {name}"
    return f"{sign}{size} B"
