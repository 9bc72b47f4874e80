"""The simulated driver tells the kernels of a library that it loaded, by their names."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memacct.dry_run.toolkit import make_toolkit
from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from pathlib import Path

PTX = b"""//
.version 8.0
.target sm_80
.func helper() { ret; }
.visible .entry first(
  .param .u64 p
) { ret; }
.visible .entry _Z6secondv() { ret; }
"""
PROGRAM = """
import ctypes, json, sys
from ctypes import byref, c_char_p, c_uint, c_void_p
cu = ctypes.CDLL("libcuda.so.1")
assert cu.cuInit(0) == 0
library, count, name = c_void_p(), c_uint(), c_char_p()
path = sys.argv[1].encode()
found = {"missing": cu.cuLibraryLoadFromFile(byref(library), path + b"-", *[None] * 6)}
if sys.argv[2] == "file":
    code = cu.cuLibraryLoadFromFile(byref(library), path, None, None, 0, None, None, 0)
else:
    image = open(path, "rb").read() + b"\\0"
    code = cu.cuLibraryLoadData(byref(library), image, None, None, 0, None, None, 0)
assert code == 0
assert cu.cuLibraryGetKernelCount(byref(count), library) == 0
kernels = (c_void_p * max(count.value, 1))()
assert cu.cuLibraryEnumerateKernels(kernels, count, library) == 0
found["names"] = []
for kernel in list(kernels)[: count.value]:
    assert cu.cuKernelGetName(byref(name), c_void_p(kernel)) == 0
    found["names"].append(name.value.decode())
one = c_void_p()
found["known"] = cu.cuLibraryGetKernel(byref(one), library, found["names"][0].encode())
found["same"] = one.value == kernels[0]
found["unknown"] = cu.cuLibraryGetKernel(byref(one), library, b"nobody")
print(json.dumps(found))
"""


def listed(path: Path, by: str) -> dict[str, Any]:
    with SimulatedGpu() as gpu:
        done = gpu.run(
            [sys.executable, "-S", "-c", PROGRAM, str(path), by],
            text=True, capture_output=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("by", ["file", "image"])
@pytest.mark.parametrize("kind", ["cubin", "ptx"])
def test_a_librarys_kernels(kind: str, by: str, tmp_path: Path) -> None:
    if kind == "cubin":
        environ = make_toolkit(tmp_path)
        path, names = tmp_path / "out.cubin", ["kernel"]
        # As DeepGEMM calls it.
        command = [environ["DG_JIT_NVCC_COMPILER"], "kernel.cu", "--cubin", "-o", str(path)]
        subprocess.run(command, check=True)
    else:
        path, names = tmp_path / "out.ptx", ["first", "_Z6secondv"]
        path.write_bytes(PTX)
    file_not_found, not_found = 301, 500
    assert listed(path, by) == {
        "names": names, "known": 0, "same": True, "missing": file_not_found, "unknown": not_found,
    }  # fmt: skip


def test_the_toolkit_tells_a_version(tmp_path: Path) -> None:
    nvcc = make_toolkit(tmp_path)["DG_JIT_NVCC_COMPILER"]
    told = subprocess.run([nvcc, "--version"], check=True, text=True, capture_output=True).stdout
    assert "release 13.0" in told
