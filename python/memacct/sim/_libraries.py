"""Where the simulated GPU's libraries are, and copies of them that lack symbols.

A program is started with a directory of links first on its library path. A symbol is taken
away by renaming it in a copy's table of names: its hash no longer finds it, so dlsym fails
as it does on a driver that never had it.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from memacct._errors import SourceUnavailableError

CORE = "libmemacct_sim_core.so"
DRIVER = "libcuda.so.1"
NVML = "libnvidia-ml.so.1"
REDIRECT = "libmemacct_sim_redirect.so"
CONTROL = "memacct_simctl"

_ELF64_HEADER_SECTIONS = 0x28  # offset of e_shoff
_ELF64_HEADER_COUNTS = 0x3A  # offset of e_shentsize, e_shnum, e_shstrndx
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNSYM_TYPE = 11


def package_directory() -> Path:
    """Returns the directory of the built parts: ``lib`` and ``src`` are in it.

    Raises:
        SourceUnavailableError: memacct was built without them.
    """
    import memacct.sim

    # An editable install has two directories: the sources' and the built parts'.
    for place in memacct.sim.__path__:
        if (Path(place) / "lib" / CORE).exists():
            return Path(place)
    raise SourceUnavailableError(
        "memacct.sim", "memacct was built without the simulated GPU (MEMACCT_BUILD_SIM=OFF)"
    )


def library_directory() -> Path:
    """Returns the directory of the shipped libraries."""
    return package_directory() / "lib"


def make_link_directory(where: Path, missing: tuple[str, ...] = ()) -> Path:
    """Fills `where` with the driver's and NVML's names, without the symbols `missing`.

    Raises:
        ValueError: no library has one of the symbols.
    """
    where.mkdir(parents=True)
    source = library_directory()
    for name in (CORE, REDIRECT):
        (where / name).symlink_to(source / name)
    left = set(missing)
    for name, plain in ((DRIVER, "libcuda.so"), (NVML, "libnvidia-ml.so")):
        target = where / name
        found = _symbols_of(source / name) & left
        if found:
            _copy_without(source / name, target, found)
        else:
            target.symlink_to(source / name)
        (where / plain).symlink_to(name)
        left -= found
    if left:
        raise ValueError(f"missing={sorted(left)} names symbols that no simulated library has")
    return where


def _string_table(image: bytes) -> tuple[int, int]:
    """The place and size of the names that the dynamic symbol table refers to."""
    (offset,) = struct.unpack_from("<Q", image, _ELF64_HEADER_SECTIONS)
    size, count, _ = struct.unpack_from("<HHH", image, _ELF64_HEADER_COUNTS)
    sections = [_SECTION.unpack_from(image, offset + i * size) for i in range(count)]
    dynsym = next(section for section in sections if section[1] == _DYNSYM_TYPE)
    names = sections[dynsym[6]]
    return names[4], names[5]


def _symbols_of(library: Path) -> set[str]:
    image = library.read_bytes()
    at, size = _string_table(image)
    return {name.decode() for name in image[at : at + size].split(b"\0") if name}


def _copy_without(library: Path, target: Path, names: set[str]) -> None:
    shutil.copyfile(library, target)
    image = bytearray(target.read_bytes())
    at, size = _string_table(bytes(image))
    table = bytes(image[at : at + size])
    for name in names:
        # The linker may keep one name as the end of another; ours are never such an end.
        place = table.index(b"\0" + name.encode() + b"\0") + 1
        image[at + place] = ord("_")
    target.write_bytes(bytes(image))
