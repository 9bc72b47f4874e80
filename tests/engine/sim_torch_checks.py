"""Checks that run in a Python with the CUDA build of torch, on the simulated GPU.

``python sim_torch_checks.py NAME`` runs one; test_sim_torch.py starts each on a machine of
32 GiB with contexts of 400 MiB.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import torch

MIB = 1 << 20
CONTEXT_MIB = 400


def used_mib() -> int:
    """What the device's use is now."""
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return (total_bytes - free_bytes) // MIB


def take(mib: int) -> torch.Tensor:
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")


def device() -> None:
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == 1
    assert torch.cuda.get_device_capability() == (9, 0)
    properties = torch.cuda.get_device_properties(0)
    assert properties.multi_processor_count == 132
    assert properties.total_memory == 32 * 1024 * MIB
    assert str(properties.uuid) == "516dcda0-0000-4000-8000-516dcda00000"


def asking_takes_nothing() -> None:
    """Counting and describing devices makes no context; the driver tells so."""
    torch.cuda.device_count()
    torch.cuda.get_device_properties(0)
    driver = ctypes.CDLL("libcuda.so.1")
    flags, active = ctypes.c_uint(), ctypes.c_int(-1)
    code = driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
    assert (code, active.value) == (0, 0)
    take(1)
    driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
    assert active.value == 1


def account() -> None:
    before = used_mib()
    assert before == CONTEXT_MIB
    block = take(1024)
    assert used_mib() == before + 1024
    assert torch.cuda.memory_stats()["allocated_bytes.all.current"] == 1024 * MIB
    del block
    assert used_mib() == before + 1024  # torch keeps it
    torch.cuda.empty_cache()
    assert used_mib() == before


def out_of_memory() -> None:
    try:
        take(40 * 1024)
    except torch.OutOfMemoryError as error:
        assert "32.00 GiB" in str(error)  # noqa: PT017 (no pytest here)
    else:
        raise AssertionError("no error")
    assert used_mib() == CONTEXT_MIB


def work() -> None:
    host = torch.arange(10.0)
    assert host.cuda().cpu().equal(host)
    assert torch.ones(5, dtype=torch.int32, device="cuda").tolist() == [1] * 5
    full = torch.full((70000,), 3, dtype=torch.bfloat16, device="cuda")
    assert full.cpu()[-1].item() == 3
    assert torch.zeros(4, device="cuda").tolist() == [0] * 4
    square = torch.ones(64, 64, dtype=torch.float16, device="cuda")
    assert torch.mm(square, square).shape == (64, 64)
    assert torch.nn.functional.linear(square, square, square[0]).shape == (64, 64)
    assert host.pin_memory().is_pinned()


def streams_events_graphs() -> None:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.stream(torch.cuda.Stream()):
        start.record()
        torch.ones(3, device="cuda") + 1
        end.record()
    torch.cuda.synchronize()
    assert start.elapsed_time(end) > 0
    graph, numbers = torch.cuda.CUDAGraph(), torch.zeros(10, device="cuda")
    with torch.cuda.graph(graph):
        numbers + 1
    graph.replay()


def capture_after_a_line() -> None:
    """Begins to capture a graph when it is told to."""
    torch.cuda.init()
    print("ready", flush=True)
    sys.stdin.readline()
    graph, numbers = torch.cuda.CUDAGraph(), torch.zeros(10, device="cuda")
    with torch.cuda.graph(graph):
        numbers + 1
    print("captured", flush=True)
    sys.stdin.readline()


def readings() -> None:
    """Three readings, of which a fault may change the second."""
    print(*[used_mib() for _ in range(3)])


def fork_after_init() -> None:
    """The child has neither runtime nor driver, as CUDA has it, and holds nothing."""
    take(1024)
    loaded = ctypes.CDLL(None)  # what the process has, by whatever name
    read, write = os.pipe()
    if os.fork() == 0:
        count = ctypes.c_int()
        codes = (
            loaded.cudaGetDeviceCount(ctypes.byref(count)),
            loaded.cudaFree(None),
            loaded.cuInit(0),
        )
        os.write(write, bytes(codes))
        os._exit(0)
    os.wait()
    not_initialised = 3
    assert os.read(read, 10) == bytes([not_initialised] * 3)
    assert used_mib() == CONTEXT_MIB + 1024


def allocator() -> None:
    """Under the allocator that PYTORCH_CUDA_ALLOC_CONF names."""
    before = used_mib()
    block = torch.empty(3 << 30, dtype=torch.uint8, device="cuda")
    grown = used_mib() - before
    del block
    torch.cuda.empty_cache()
    assert 3072 <= grown <= 3092, grown
    assert used_mib() == before


def memory_of_another_process() -> None:
    """Another process opens it, and takes nothing of the device by that; one's own it cannot."""
    held = take(64)
    runtime, handle = ipc_runtime(), IpcHandle()
    assert runtime.cudaIpcGetMemHandle(ctypes.byref(handle), held.data_ptr()) == 0
    command = [sys.executable, __file__, "open_memory", bytes(handle).hex()]
    subprocess.run(command, check=True)
    address = ctypes.c_void_p()
    assert runtime.cudaIpcOpenMemHandle(ctypes.byref(address), handle, 1) != 0
    on_host = torch.empty(64)
    assert runtime.cudaIpcGetMemHandle(ctypes.byref(handle), on_host.data_ptr()) != 0


class IpcHandle(ctypes.Structure):
    """cudaIpcMemHandle_t, which is passed by value."""

    _fields_ = (("reserved", ctypes.c_char * 64),)


def ipc_runtime() -> ctypes.CDLL:
    runtime = ctypes.CDLL("libcudart.so.13")
    runtime.cudaIpcGetMemHandle.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    runtime.cudaIpcOpenMemHandle.argtypes = (ctypes.c_void_p, IpcHandle, ctypes.c_uint)
    runtime.cudaIpcCloseMemHandle.argtypes = (ctypes.c_void_p,)
    runtime.cudaMemset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    return runtime


def open_memory() -> None:
    """The other process: opens the 64 MiB whose handle it is given, and writes at their end."""
    runtime, address = ipc_runtime(), ctypes.c_void_p()
    take(1)
    before = used_mib()
    handle = IpcHandle.from_buffer_copy(bytes.fromhex(sys.argv[2]))
    assert runtime.cudaIpcOpenMemHandle(ctypes.byref(address), handle, 1) == 0
    assert address.value is not None
    assert runtime.cudaMemset(address.value + 64 * MIB - 8, 7, 8) == 0
    assert used_mib() == before
    assert runtime.cudaIpcCloseMemHandle(address) == 0
    assert used_mib() == before


if __name__ == "__main__":
    globals()[sys.argv[1]]()
