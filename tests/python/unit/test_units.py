from __future__ import annotations

import pytest

from memacct._units import GIB, KIB, MIB, TIB, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (123, 123),
        ("0", 0),
        ("268435456", 256 * MIB),
        ("256MiB", 256 * MIB),
        ("256 mib", 256 * MIB),
        ("1.5GiB", 3 * GIB // 2),
        ("80g", 80 * GIB),
        ("1k", KIB),
        ("2TB", 2 * TIB),
        ("7B", 7),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_sizes_are_read(text: int | str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", [-1, "-1", "", "GiB", "1.2.3k", "1e9", "12x", "ib", "5iB", True, None, 1.5, "0.3B"]
)
def test_what_is_no_size_is_named(text: object) -> None:
    with pytest.raises(ValueError, match="is not a") as caught:
        parse_bytes(text)  # type: ignore[arg-type]
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1.00 KiB"),
        (3 * GIB // 2, "1.50 GiB"),
        (-MIB, "-1.00 MiB"),
    ],
)
def test_sizes_are_written(size: int, text: str) -> None:
    assert format_bytes(size) == text
