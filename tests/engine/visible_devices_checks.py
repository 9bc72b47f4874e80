"""torch's own reading of CUDA_VISIBLE_DEVICES; run by torch's Python on the simulated GPU.

Takes {"values": [...], "instances": [...]} as JSON on stdin. Prints {"uuids": NVML's, "parsed":
what torch's parser makes of each value: indices, null where it fails; "seen": the UUIDs of the
devices that torch has after CUDA's start, for each value in a process of its own}.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch


def parsed(value: str, uuids: list[str], instances: list[str]) -> list[int] | None:
    """Indices of the devices, by torch's parser."""
    os.environ["CUDA_VISIBLE_DEVICES"] = value
    try:
        visible: Any = torch.cuda._parse_visible_devices()
    except ValueError:  # int("+"): torch's own gap
        return None
    if not visible:
        return []
    if isinstance(visible[0], str):
        names = instances if value.startswith("MIG-") else uuids
        return list(torch.cuda._transform_uuid_to_ordinals(visible, names))
    inside = [number < len(uuids) for number in visible]
    return list(visible[: inside.index(False)] if False in inside else visible)


def seen(value: str) -> list[str]:
    """The UUIDs of the devices that the driver has, as torch tells them."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = value
        count = torch._C._cuda_getDeviceCount()  # the driver's, where device_count() asks NVML
        found = [str(torch.cuda.get_device_properties(n).uuid) for n in range(count)]
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        found = json.loads(answer.read())
    os.wait()
    return list(found)


def main() -> None:
    """Answers for all values."""
    asked = json.load(sys.stdin)
    uuids = torch.cuda._raw_device_uuid_nvml() or []
    answers = [parsed(value, uuids, asked["instances"]) for value in asked["values"]]
    devices = [seen(value) for value in asked["start"]]
    print(json.dumps({"uuids": uuids, "parsed": answers, "seen": devices}))


if __name__ == "__main__":
    main()
