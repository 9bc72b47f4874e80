"""A process that maps memory of one sort, says where, and then stands still.

``python mapped_process.py SORT [FOLDER]`` prints one line of JSON, ``[[start, size, rss], ...]``
(rss: the bytes that are resident there, None where the kernel decides), or ``null`` where the
machine does not have this sort; it then waits until its standard input is closed.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = mmap.PAGESIZE
MIB = 1 << 20
HUGE = 2 * MIB
READ, WRITE, EXEC = 1, 2, 4
SHARED, PRIVATE, FIXED, ANONYMOUS, HUGETLB = 0x01, 0x02, 0x10, 0x20, 0x40000
DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, GUARD_INSTALL = 4, 8, 14, 15, 16, 102
IO_URING_SETUP, PERF_EVENT_OPEN = 425, 298

Region = tuple[int, int, "int | None"]

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mlock.argtypes = libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
for name in ("madvise", "mprotect"):
    getattr(libc, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _mmap(
    address: int | None, size: int, protection: int, flags: int, *, fd: int = -1, offset: int = 0
) -> int:
    start: int = libc.mmap(address, size, protection, flags, fd, offset)
    if start == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return start


def map_memory(
    size: int,
    flags: int = PRIVATE | ANONYMOUS,
    fd: int = -1,
    *,
    protection: int = READ | WRITE,
    offset: int = 0,
    align: int = PAGE,
) -> int:
    """Maps between two pages of nothing, so that no neighbour becomes one with it."""
    around = _mmap(None, size + align + PAGE, 0, PRIVATE | ANONYMOUS)
    start = (around + PAGE + align - 1) // align * align
    return _mmap(start, size, protection, flags | FIXED, fd=fd, offset=offset)


def unmap(start: int, size: int) -> None:
    check(libc.munmap(start, size))


def small_pages(size: int, flags: int = PRIVATE | ANONYMOUS, fd: int = -1) -> int:
    start = map_memory(size, flags, fd)
    check(libc.madvise(start, size, NOHUGEPAGE))
    return start


def write(start: int, size: int, step: int = PAGE) -> int:
    """Writes to a page of each step; returns the bytes that it made resident."""
    for at in range(start, start + size, step):
        ctypes.memset(at, 1, 1)
    return len(range(start, start + size, step)) * PAGE


def read(start: int, size: int, step: int = PAGE) -> None:
    for at in range(start, start + size, step):
        ctypes.string_at(at, 1)


def holes(_: Path) -> list[Region]:
    sparse = small_pages(8 * MIB)
    dense = small_pages(8 * MIB)
    return [
        (sparse, 8 * MIB, write(sparse, 8 * MIB, 3 * PAGE)),
        (dense, 8 * MIB, write(dense, 8 * MIB)),
    ]


def zero_page(_: Path) -> list[Region]:
    start = small_pages(4 * MIB)
    read(start, 4 * MIB)
    return [(start, 4 * MIB, write(start, 4 * MIB, 7 * PAGE))]


def huge_pages(_: Path) -> list[Region]:
    whole, only_read, torn = (map_memory(size * HUGE, align=HUGE) for size in (4, 2, 1))
    for start, size in ((whole, 4 * HUGE), (only_read, 2 * HUGE), (torn, HUGE)):
        check(libc.madvise(start, size, HUGEPAGE))
    write(whole, 3 * HUGE, HUGE)
    read(only_read, 2 * HUGE, HUGE)
    write(torn, HUGE)
    check(libc.madvise(torn + 5 * PAGE, 3 * PAGE, DONTNEED))
    return [(whole, 4 * HUGE, 3 * HUGE), (only_read, 2 * HUGE, 0), (torn, HUGE, HUGE - 3 * PAGE)]


def files(folder: Path) -> list[Region]:
    regions: list[Region] = []
    names = [
        "plain",
        "with space",
        "new\nline",
        "it's (deleted)",
        "lib.so.1.2",
        "Rss:  4 kB",
        "gone",
    ]
    for index, file_name in enumerate(names):
        path = folder / file_name
        path.write_bytes(bytes(range(256)) * (4 * MIB // 256))
        fd = os.open(path, os.O_RDWR)
        shared = map_memory(4 * MIB, SHARED, fd)
        private = map_memory(MIB, PRIVATE, fd, offset=(index + 1) * PAGE)
        program = map_memory(MIB, PRIVATE, fd, protection=READ | EXEC)
        os.close(fd)
        read(program, MIB, 40 * PAGE)
        regions += [
            (shared, 4 * MIB, write(shared, 4 * MIB, 5 * PAGE)),
            (private, MIB, write(private, MIB, 2 * PAGE)),
            (program, MIB, None),
        ]
    (folder / "gone").unlink()
    return regions


def shared_memory(_: Path) -> list[Region]:
    memfd = os.memfd_create("a memfd")
    in_dev_shm = Path("/dev/shm") / f"memacct-{os.getpid()}"
    dev_shm = os.open(in_dev_shm, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    in_dev_shm.unlink()
    regions: list[Region] = []
    for fd, flags in (
        (memfd, SHARED),
        (dev_shm, SHARED),
        (memfd, PRIVATE),
        (-1, SHARED | ANONYMOUS),
    ):
        if fd >= 0:
            os.truncate(fd, 4 * MIB)
        start = small_pages(4 * MIB, flags, fd)
        regions.append((start, 4 * MIB, write(start, 4 * MIB, 3 * PAGE)))
    return regions


def protected(_: Path) -> list[Region]:
    """Each third page of one mapping may not be read, each third only be read: it falls apart."""
    size = 300 * PAGE
    start = small_pages(size)
    resident = write(start, size, 2 * PAGE)
    for at in range(start, start + size, 3 * PAGE):
        check(libc.mprotect(at, PAGE, 0))
        check(libc.mprotect(at + PAGE, PAGE, READ))
    reserved = map_memory(64 * MIB, protection=0)
    check(libc.madvise(reserved, 64 * MIB, DONTDUMP))  # else one with the nothing around it
    return [(start, size, resident), (reserved, 64 * MIB, 0)]


def advised(_: Path) -> list[Region]:
    locked, freed, dropped = small_pages(MIB), small_pages(MIB), small_pages(MIB)
    check(libc.mlock(locked, MIB))
    # Freed lazily: resident until the machine needs it.
    write(freed, MIB)
    check(libc.madvise(freed, MIB // 2, FREE))
    write(dropped, MIB)
    check(libc.madvise(dropped, MIB // 2, DONTNEED))
    return [(locked, MIB, MIB), (freed, MIB, None), (dropped, MIB, MIB // 2)]


def guards(_: Path) -> list[Region] | None:
    start = small_pages(MIB)
    resident = write(start, MIB)
    if libc.madvise(start + 16 * PAGE, 16 * PAGE, GUARD_INSTALL) != 0:  # Linux 6.13
        return None
    return [(start, MIB, resident - 16 * PAGE)]


def many(_: Path) -> list[Region]:
    """5,000 mappings that cannot be one, since their neighbours have other rights."""
    start = small_pages(5000 * 2 * PAGE)
    for index in range(0, 5000, 2):
        check(libc.mprotect(start + index * 2 * PAGE, 2 * PAGE, READ))
    resident = sum(write(start + i * 2 * PAGE, PAGE) for i in range(1, 5000, 2))
    return [(start, 5000 * 2 * PAGE, resident)]


def zero_devices(_: Path) -> list[Region]:
    fd = os.open("/dev/zero", os.O_RDWR)
    private, shared = small_pages(MIB, PRIVATE, fd), small_pages(MIB, SHARED, fd)
    read(private, MIB)
    return [
        (private, MIB, write(private, MIB, 3 * PAGE)),
        (shared, MIB, write(shared, MIB, 2 * PAGE)),
    ]


def hugetlb(_: Path) -> list[Region] | None:
    try:
        start = map_memory(2 * HUGE, PRIVATE | ANONYMOUS | HUGETLB, align=HUGE)
        fd = os.memfd_create("huge", 0x4)
        os.truncate(fd, HUGE)
        other = map_memory(HUGE, SHARED, fd, align=HUGE)
    except OSError:
        return None  # no pages in the pool
    write(start, 2 * HUGE, HUGE)
    write(other, HUGE, HUGE)
    return [(start, 2 * HUGE, 0), (other, HUGE, 0)]


def _rings() -> list[tuple[str, Callable[[], tuple[int, int, int]]]]:
    def uring() -> tuple[int, int, int]:
        parameters = ctypes.create_string_buffer(120)
        return libc.syscall(IO_URING_SETUP, 256, parameters), 4 * PAGE, 0x10000000

    def packets() -> tuple[int, int, int]:
        ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        # SOL_PACKET, PACKET_RX_RING: struct tpacket_req
        ring.setsockopt(263, 5, b"".join(n.to_bytes(4, "little") for n in (PAGE, 16, 2048, 32)))
        return ring.detach(), 16 * PAGE, 0

    def performance() -> tuple[int, int, int]:
        # struct perf_event_attr: PERF_TYPE_SOFTWARE, its size
        attributes = (1).to_bytes(4, "little") + (128).to_bytes(4, "little") + bytes(120)
        return libc.syscall(PERF_EVENT_OPEN, attributes, 0, -1, -1, 0), 9 * PAGE, 0

    def physical() -> tuple[int, int, int]:
        return os.open("/dev/mem", os.O_RDONLY), 16 * PAGE, 0

    return [("uring", uring), ("packets", packets), ("perf", performance), ("mem", physical)]


def devices(_: Path) -> list[Region] | None:
    """Memory that drivers map into a process: pages of RAM (rings) and what is no page at all."""
    regions: list[Region] = []
    for _name, make in _rings():
        try:
            fd, size, offset = make()
            start = map_memory(size, SHARED, fd, protection=READ, offset=offset)
            read(start, size)
        except OSError:
            continue
        regions.append((start, size, None))
    return regions or None


SORTS: dict[str, Callable[[Path], list[Region] | None]] = {
    sort.__name__: sort
    for sort in (
        holes,
        zero_page,
        huge_pages,
        files,
        shared_memory,
        protected,
        advised,
        guards,
        many,
        zero_devices,
        hugetlb,
        devices,
    )
}

if __name__ == "__main__":
    made = SORTS[sys.argv[1]](Path(*sys.argv[2:]))
    print(json.dumps(made), flush=True)
    sys.stdin.read()
