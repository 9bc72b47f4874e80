"""A neighbour on the GPU: a process that holds, takes and releases device memory on command.

Speaks the CUDA driver's own interface through ctypes, so that the same file serves a real GPU and
a simulated one, and starts in a tenth of a second. Reads one command a line and answers each with
one line of JSON, when it is done:

    hold BYTES     allocates BYTES more
    leave BYTES    allocates all that is free but BYTES
    release        frees everything it holds
    (end of input) ends

    python memacct_neighbour.py [DEVICE]      # or --probe: says which device there is, and ends
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

# A single cudaMalloc of tens of GiB is as good as many; pages are what the driver gives anyway.
PAGE_BYTES = 2 << 20


class Driver:
    """The few functions of libcuda that are needed; each failure raises OSError."""

    def __init__(self, device: int) -> None:
        """Makes the device's primary context current, as the CUDA runtime would."""
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", ctypes.c_uint(0))
        self.call("cuDeviceGet", ctypes.byref(self.device), ctypes.c_int(device))
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.call("cuCtxSetCurrent", context)
        self.held: dict[int, int] = {}

    def call(self, name: str, *arguments: Any) -> None:
        """Calls `name`; raises OSError with the driver's code if it is not 0."""
        code = getattr(self.cuda, name)(*arguments)
        if code != 0:
            raise OSError(code, f"{name} returned {code}")

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def hold(self, size_bytes: int) -> None:
        """Allocates one block."""
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes))
        self.held[pointer.value] = size_bytes

    def release(self) -> None:
        """Frees every block."""
        while self.held:
            pointer, _ = self.held.popitem()
            self.call("cuMemFree_v2", ctypes.c_uint64(pointer))

    def name(self) -> str:
        """The device's name."""
        text = ctypes.create_string_buffer(128)
        self.call("cuDeviceGetName", text, ctypes.c_int(len(text)), self.device)
        return text.value.decode()


def obey(driver: Driver, line: str) -> Exception | None:
    """Carries out one command; returns why it could not."""
    try:
        carry_out(driver, line)
    except (OSError, ValueError) as error:
        return error
    return None


def carry_out(driver: Driver, line: str) -> None:
    """Raises ValueError for an unknown command, OSError if the driver refuses."""
    command, _, argument = line.strip().partition(" ")
    if command == "hold":
        driver.hold(int(argument))
    elif command == "leave":
        surplus_bytes = driver.memory()[0] - int(argument)
        driver.hold(surplus_bytes // PAGE_BYTES * PAGE_BYTES)
    elif command == "release":
        driver.release()
    else:
        raise ValueError(f"unknown command {command!r}")


def answer(driver: Driver, error: Exception | None = None) -> None:
    """One line about the device and what is held now."""
    free_bytes, total_bytes = driver.memory()
    report = {
        "name": driver.name(),
        "held_bytes": sum(driver.held.values()),
        "free_bytes": free_bytes,
        "total_bytes": total_bytes,
        "error": None if error is None else str(error),
    }
    print(json.dumps(report), flush=True)  # noqa: T201 - the answer


def main() -> int:
    """Exit status 1 if there is no device."""
    device = sys.argv[1] if len(sys.argv) > 1 else "0"
    try:
        driver = Driver(0 if device == "--probe" else int(device))
    except OSError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201 - the answer
        return 1
    answer(driver)
    if device == "--probe":
        return 0
    for line in sys.stdin:
        answer(driver, obey(driver, line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
