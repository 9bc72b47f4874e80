"""A directory that looks to memacct like the root of a machine with control groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct import _core

if TYPE_CHECKING:
    from pathlib import Path

V1_STAT = "inactive_file 1\nactive_file 2\ntotal_inactive_file {0}\ntotal_active_file {1}\n"
V2_STAT = "anon 5\ninactive_file {0}\nactive_file {1}\n"


class Tree:
    """A root directory with the files that say where this process's control group is."""

    def __init__(
        self, root: Path, *, version: int, path: str, mounts: list[tuple[str, str]]
    ) -> None:
        self.root = root
        self.version = version
        line = f"0::{path}\n" if version == 2 else f"4:memory:{path}\n3:cpu:/else\n0::/\n"
        self.write("/proc/self/cgroup", line)
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        others = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        others += "31 23 0:28 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n"
        for group, point in mounts:
            others += f"35 31 0:32 {group} {point} rw,relatime shared:5 master:2 - {kind}\n"
        self.write("/proc/self/mountinfo", others)

    def write(self, path: str, text: str) -> None:
        """Writes one file; ``path`` is absolute, as the machine would name it."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group(self, directory: str, *, limit: str, usage: int, high: str = "max") -> None:
        """Writes a group's files: half of its usage is inactive page cache, a quarter active."""
        names = ("memory.max", "memory.current")
        if self.version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        self.write(f"{directory}/{names[0]}", f"{limit}\n")
        self.write(f"{directory}/{names[1]}", f"{usage}\n")
        stat = V1_STAT if self.version == 1 else V2_STAT
        self.write(f"{directory}/memory.stat", stat.format(usage // 2, usage // 4))
        if self.version == 2:
            self.write(f"{directory}/memory.high", f"{high}\n")

    def files(self, directory: str, texts: dict[str, object]) -> None:
        """Writes files of a group, by name; a newline is added, as the kernel writes it."""
        for name, text in texts.items():
            self.write(f"{directory}/{name}", f"{text}\n")

    def read(self) -> _core.CgroupMemory | None:
        """Returns what memacct finds in it."""
        return _core.read_cgroup(str(self.root))


def known(cgroup: _core.CgroupMemory | None) -> _core.CgroupMemory:
    """Returns the group, which must be known."""
    assert cgroup is not None
    return cgroup
