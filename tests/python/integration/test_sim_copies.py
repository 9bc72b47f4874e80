"""Copies on the simulated device are real, and what was never written takes no host memory."""

from __future__ import annotations

import json
import subprocess
import sys

from memacct._units import GIB, MIB
from memacct.sim import SimulatedGpu

# Copies 1 GiB of which one page and a half are written, at addresses that are no whole pages.
PROGRAM = """
import ctypes, json, re
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
cu = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    assert getattr(cu, name)(*arguments) == 0, name
def rss_bytes():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
context, size = c_void_p(), 1 << 30
call("cuInit", 0)
call("cuDevicePrimaryCtxRetain", byref(context), 0)
call("cuCtxSetCurrent", context)
addresses = []
for _ in range(2):
    address = c_uint64()
    call("cuMemAlloc_v2", byref(address), c_size_t(size + 4096))
    addresses.append(address.value)
source, target = addresses[0] + 100, addresses[1] + 300
written = bytes(range(256)) * 24
at = (512 << 20) - 1000
call("cuMemcpyHtoD_v2", c_uint64(source + at), written, c_size_t(len(written)))
# What stood in the target is gone after the copy.
call("cuMemcpyHtoD_v2", c_uint64(target + 5000), b"before", c_size_t(6))
before = rss_bytes()
call("cuMemcpyDtoD_v2", c_uint64(target), c_uint64(source), c_size_t(size))
grown = rss_bytes() - before
def read(offset, count):
    out = ctypes.create_string_buffer(count)
    call("cuMemcpyDtoH_v2", out, c_uint64(target + offset), c_size_t(count))
    return out.raw
print(json.dumps({
    "grown_bytes": grown,
    "copied": read(at, len(written)) == written,
    "around": set(read(at - 5000, 5000) + read(at + len(written), 5000)) == {0},
    "before": set(read(5000, 6)) == {0},
}))
"""


def test_what_was_never_written_is_copied_without_memory() -> None:
    with SimulatedGpu(total_bytes=4 * GIB) as gpu:
        done = subprocess.run(
            [*gpu.prefix, sys.executable, "-c", PROGRAM],
            env=gpu.environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["copied"]
    assert found["around"]
    assert found["before"]
    assert found["grown_bytes"] < 16 * MIB
