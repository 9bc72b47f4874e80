"""Mappings of this process that a test makes, and finds again in a snapshot."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import memacct

if TYPE_CHECKING:
    from memacct._core import Mapping, Mappings

MIB = 1 << 20
PAGE = mmap.PAGESIZE
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
MADV_FREE = 8
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_VMA, PR_SET_VMA_ANON_NAME = 0x53564D41, 0


def touch(block: mmap.mmap) -> mmap.mmap:
    for offset in range(0, len(block), PAGE):
        block[offset] = 1
    return block


def read_all(block: mmap.mmap) -> mmap.mmap:
    sum(block[offset] for offset in range(0, len(block), PAGE))
    return block


def address(block: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(block))


def find(mappings: Mappings, place: int) -> Mapping:
    rows = mappings.rows
    index = int(np.searchsorted(rows["start"], place, side="right")) - 1
    mapping = mappings[index]
    assert mapping.start <= place < mapping.end
    return mapping


def read() -> Mappings:
    mappings = memacct.snapshot(host="mappings", devices=None).mappings
    assert mappings is not None
    return mappings


def file_of(folder: Path, name: str, size: int = 4 * MIB) -> Path:
    path = folder / name
    path.write_bytes(b"x" * size)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def map_file(path: Path, *, flags: int = mmap.MAP_SHARED, prot: int = 3) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=prot)


def on_a_disk(mapping: Mapping) -> bool:
    return mapping.kind != "shmem"
