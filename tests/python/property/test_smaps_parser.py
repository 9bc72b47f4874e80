"""Laws of the parser of smaps: it undoes the kernel's formatting, in pieces of any size."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memacct import SourceFormatError, _core

# Key -> column, in the order of fs/proc/task_mmu.c, Linux 6.18.
SIZES = {
    "Size": "vms_bytes",
    "KernelPageSize": "kernel_page_bytes",
    "MMUPageSize": "mmu_page_bytes",
    "Rss": "rss_bytes",
    "Pss": "pss_bytes",
    "Pss_Dirty": "pss_dirty_bytes",
    "Shared_Clean": "shared_clean_bytes",
    "Shared_Dirty": "shared_dirty_bytes",
    "Private_Clean": "private_clean_bytes",
    "Private_Dirty": "private_dirty_bytes",
    "Referenced": "referenced_bytes",
    "Anonymous": "anonymous_bytes",
    "KSM": "ksm_bytes",
    "LazyFree": "lazy_free_bytes",
    "AnonHugePages": "anon_huge_bytes",
    "ShmemPmdMapped": "shmem_huge_bytes",
    "FilePmdMapped": "file_huge_bytes",
    "Shared_Hugetlb": "shared_hugetlb_bytes",
    "Private_Hugetlb": "private_hugetlb_bytes",
    "Swap": "swap_bytes",
    "SwapPss": "swap_pss_bytes",
    "Locked": "locked_bytes",
}
FLAGS = tuple(_core.VM_FLAGS)
OTHER_FLAG = 1 << 63
KIB_SIZES = st.integers(0, 99_999_999) | st.integers(0, 2**54 - 1)
UNSIGNED_32 = st.integers(0, 2**32 - 1)
UNSIGNED_64 = st.integers(0, 2**64 - 1)

# What a file may be called: anything but NUL, except for what the kernel's text cannot tell
# apart (a literal "\012" from a newline, a literal " (deleted)" from a deleted file).
NAME_PARTS = st.sampled_from(
    [b" ", b"\n", b"Rss:                   8 kB", b"\n0-1 r--p 0 0:0 0", b"VmFlags: rd", b"/", b":"]
) | st.binary(min_size=1, max_size=6).map(lambda part: part.replace(b"\0", b"x"))
FILE_NAMES = (
    st.lists(NAME_PARTS, max_size=4)
    .map(lambda parts: b"/" + b"".join(parts))
    .filter(lambda name: b"\\012" not in name and not name.endswith(b" (deleted)"))
)
SPECIAL_NAMES = st.sampled_from(
    [b"[heap]", b"[stack]", b"[vdso]", b"[anon:glibc: malloc arena]", b"anon_inode:[io_uring]"]
)
UNKNOWN_KEYS = st.from_regex(r"\A[A-Z][A-Za-z_]{0,15}\Z").filter(
    lambda key: key not in {*SIZES, "VmFlags", "THPeligible", "ProtectionKey"}
)
UNKNOWN_LINES = st.tuples(
    UNKNOWN_KEYS, st.sampled_from([" 1", "\t12 kB", " rd wr", "", " a: b", "     -1 kB "])
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A mapping's values, and its text as the kernel would write it."""

    start: int
    end: int
    perms: str
    offset: int
    device: tuple[int, int]
    inode: int
    name: bytes | None
    deleted: bool
    kib: dict[str, int]
    flags: tuple[str, ...] | None
    unknown: list[tuple[str, str]]

    def text(self) -> bytes:
        head = (
            f"{self.start:08x}-{self.end:08x} {self.perms} {self.offset:08x}"
            f" {self.device[0]:02x}:{self.device[1]:02x} {self.inode} "
        ).encode()
        if self.name is not None:
            head = head.ljust(73) + self.name.replace(b"\n", b"\\012")
        if self.deleted:
            head += b" (deleted)"
        lines = [f"{key + ':':<16}{value:8} kB" for key, value in self.kib.items()]
        lines += [f"{key}:{value}" for key, value in self.unknown]
        if self.flags is not None:
            lines.append("VmFlags: " + "".join(f"{flag} " for flag in self.flags))
        return head + b"\n" + "".join(f"{line}\n" for line in lines).encode()


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    """Mappings by address, of one kernel or (some lacking fields) of none."""
    count = draw(st.integers(0, 5))
    bounds = sorted(draw(st.lists(UNSIGNED_64, min_size=2 * count, max_size=2 * count)))
    common = draw(st.sets(st.sampled_from(list(SIZES))))
    made = []
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        name = draw(st.none() | FILE_NAMES | SPECIAL_NAMES)
        lacking = draw(st.just(set()) | st.sets(st.sampled_from(list(SIZES)), max_size=2))
        keys = [key for key in SIZES if key == "Rss" or key in common - lacking]
        made.append(
            Record(
                start=start,
                end=end,
                perms="".join(draw(st.sampled_from((bit, "-"))) for bit in "rwx")
                + draw(st.sampled_from("sp")),
                offset=draw(UNSIGNED_64),
                device=(draw(UNSIGNED_32), draw(UNSIGNED_32)),
                inode=draw(UNSIGNED_64),
                name=name,
                deleted=name is not None and name[:1] == b"/" and draw(st.booleans()),
                kib={key: draw(KIB_SIZES) for key in keys},
                flags=draw(st.none() | st.lists(st.sampled_from((*FLAGS, "zz"))).map(tuple)),
                unknown=draw(st.lists(UNKNOWN_LINES, max_size=2)),
            )
        )
    return made


def text_of(made: list[Record]) -> bytes:
    return b"".join(record.text() for record in made)


def expected_columns(made: list[Record]) -> dict[str, list[object]]:
    """What of ``Mappings.columns`` the records say; no sizes that some record lacks."""
    bits = {"r": 1, "w": 2, "x": 4, "s": 8, "p": 0, "-": 0}
    columns: dict[str, list[object]] = {
        "start": [record.start for record in made],
        "end": [record.end for record in made],
        "offset": [record.offset for record in made],
        "inode": [record.inode for record in made],
        "dev_major": [record.device[0] for record in made],
        "dev_minor": [record.device[1] for record in made],
        "perms": [sum(bits[letter] for letter in record.perms) for record in made],
        "deleted": [record.deleted for record in made],
    }
    for key, column in SIZES.items():
        if made and all(key in record.kib for record in made):
            columns[column] = [record.kib[key] * 1024 for record in made]
    if made and all(record.flags is not None for record in made):
        columns["vm_flags"] = [
            sum({_core.VM_FLAGS.get(flag, OTHER_FLAG) for flag in record.flags or ()})
            for record in made
        ]
    return columns


@settings(deadline=None)
@given(made=records(), chunk_bytes=st.integers(1, 4096))
def test_parse_undoes_format(made: list[Record], chunk_bytes: int) -> None:
    mappings = _core.parse_smaps(text_of(made), chunk_bytes)
    columns = mappings.columns
    indices = columns.pop("path_index")
    columns.pop("kind")  # is set later, from the path
    assert columns == expected_columns(made)
    names = [None if i < 0 else os.fsencode(mappings.paths[i]) for i in indices]
    assert names == [record.name for record in made]
    assert len(set(mappings.paths)) == len(mappings.paths)
    unknown = [key for record in made for key, _ in record.unknown]
    assert mappings.unread_fields == tuple(dict.fromkeys(unknown))


@settings(deadline=None)
@given(made=records(), chunk_bytes=st.integers(1, 300))
def test_sizes_of_pieces_never_change_a_parse(made: list[Record], chunk_bytes: int) -> None:
    text = text_of(made)
    whole = _core.parse_smaps(text, len(text) + 1)
    assert _core.parse_smaps(text, chunk_bytes) == whole
    assert _core.parse_smaps(text) == whole


def outcome(text: bytes, chunk_bytes: int) -> object:
    try:
        return _core.parse_smaps(text, chunk_bytes)
    except SourceFormatError as error:
        return error.args


@settings(deadline=None)
@given(made=records(), data=st.data())
def test_a_changed_byte_parses_or_is_reported(made: list[Record], data: st.DataObject) -> None:
    text = bytearray(text_of(made) or b"\n")
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255))
    whole = outcome(bytes(text), len(text))
    assert outcome(bytes(text), data.draw(st.integers(1, 64))) == whole


@settings(deadline=None)
@given(made=records(), data=st.data())
def test_a_text_that_ends_early_is_reported_or_is_a_shorter_file(
    made: list[Record], data: st.DataObject
) -> None:
    text = text_of(made)
    cut = text[: data.draw(st.integers(0, len(text)))]
    if cut and not cut.endswith(b"\n"):
        with pytest.raises(SourceFormatError, match="cut off"):
            _core.parse_smaps(cut)
    else:
        outcome(cut, 64)


@settings(deadline=None)
@given(text=st.binary(max_size=300), chunk_bytes=st.integers(1, 64))
def test_arbitrary_bytes_raise_a_format_error_only(text: bytes, chunk_bytes: int) -> None:
    assert outcome(text, chunk_bytes) == outcome(text, 301)
