"""Which GPUs are looked at (``--devices``), and how each is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct import _core
from memacct._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct._core import DeviceInfo, DeviceMemory


def chosen_uuids(text: str) -> list[str] | None:
    """Returns the devices of a ``--devices`` value such as "0,GPU-5f"; None: all there are.

    A number is an index as nvidia-smi counts, whatever CUDA_VISIBLE_DEVICES says: this is about
    the machine, not about what a program would make of it.

    Args:
        text: "auto", "all", or indices and UUIDs (or beginnings of them) with commas between.

    Raises:
        ConfigError: there is no such device, or more than one; the message has all there are.
        SourceUnavailableError: there is no driver.
    """
    if text in ("auto", "all"):
        return None
    listed = _core.list_devices()
    return [_find(key.strip(), listed) for key in text.split(",")]


def _find(key: str, listed: Sequence[DeviceInfo]) -> str:
    if key.isdecimal():
        found = [each.uuid for each in listed if each.index == int(key)]
    else:
        found = [each.uuid for each in listed if key and each.uuid.startswith(key)]
    if len(found) != 1:
        known = ", ".join(
            f"{each.index} ({each.uuid})" if each.index is not None else each.uuid
            for each in listed
        )
        what = "is more than one" if found else "is no"
        raise ConfigError(f"--devices: {key!r} {what} device; there are {known or 'none'}")
    return found[0]


def labels(readings: Sequence[DeviceMemory]) -> list[str]:
    """Returns what each is called in a table: its index, of a MIG instance "index/place"."""
    indices = {each.uuid: each.index for each in readings}
    places: dict[str, int] = {}
    found = []
    for each in readings:
        if each.parent_uuid is None:
            found.append("?" if each.index is None else str(each.index))
            continue
        place = places[each.parent_uuid] = places.get(each.parent_uuid, -1) + 1
        parent = indices.get(each.parent_uuid)
        found.append(f"{'MIG' if parent is None else parent}/{place}")
    return found
