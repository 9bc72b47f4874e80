"""Which container a process runs in, by the names of its control groups."""

from __future__ import annotations

import re

# Docker, containerd, CRI-O, Podman and the kubelet all end a container's group in its id of 64
# hexadecimal digits, bare or in a systemd scope; ECS in a task's 32 and a number.
_ID = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}-[0-9]{5,20}")
# Groups that name a container by its id but hold its monitor, which runs outside.
_MONITORS = ("conmon-", "-conmon")


def container_id(text: str) -> str | None:
    """Returns the id of the innermost container; None: in none that the names tell.

    Args:
        text: ``/proc/<pid>/cgroup``. A control group namespace hides what is above the
            reader's own group, so that a reader in a container may see no id of its own.

    Source:
        cgroups(7): lines of "hierarchy:controllers:path".
    """
    for line in text.splitlines():
        path = line.split(":", 2)[-1]
        for part in reversed(path.split("/")):
            found = _ID.findall(part)
            if found and not any(monitor in part for monitor in _MONITORS):
                last: str = found[-1]
                return last
    return None
