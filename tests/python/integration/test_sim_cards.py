"""Each known card on the simulated GPU: what a program reads there is what the catalogue tells."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memacct._units import GIB, KIB, MIB
from memacct.cards import Card, all_cards
from memacct.sim import SimulatedGpu
from memacct.sim._card import card_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of CUdevice_attribute.
ATTRIBUTES = {
    "sm_count": 16,
    "integrated": 18,
    "l2_bytes": 38,
    "threads_per_sm": 39,
    "shared_bytes_per_sm": 81,
    "shared_bytes_per_block": 97,
    "cluster_launch": 120,
    "tensor_maps": 127,
}
PROGRAM = f"""
import ctypes, json
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
cu, ml = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnvidia-ml.so.1")
assert cu.cuInit(0) == 0 and ml.nvmlInit_v2() == 0
name, number, other = ctypes.create_string_buffer(96), c_int(), c_int()
size, memory = c_size_t(), (c_ulonglong * 3)()
def attribute(which, device):
    assert cu.cuDeviceGetAttribute(byref(number), which, device) == 0
    return number.value
def card(device):
    found = {{key: attribute(which, device) for key, which in {ATTRIBUTES!r}.items()}}
    found["capability"] = [attribute(75, device), attribute(76, device)]
    assert cu.cuDeviceGetName(name, 96, device) == 0
    found["name"] = name.value.decode()
    assert cu.cuDeviceTotalMem_v2(byref(size), device) == 0
    found["cuda_total_bytes"] = size.value
    handle = c_void_p()
    assert ml.nvmlDeviceGetHandleByIndex_v2(device, byref(handle)) == 0
    assert ml.nvmlDeviceGetName(handle, name, 96) == 0
    found["nvml_name"] = name.value.decode()
    assert ml.nvmlDeviceGetCudaComputeCapability(handle, byref(number), byref(other)) == 0
    found["nvml_capability"] = [number.value, other.value]
    architecture = c_uint()
    assert ml.nvmlDeviceGetArchitecture(handle, byref(architecture)) == 0
    found["architecture"] = architecture.value
    code = ml.nvmlDeviceGetMemoryInfo(handle, memory)
    found["nvml_total_bytes"] = memory[0] if code == 0 else None
    return found
assert cu.cuDeviceGetCount(byref(number)) == 0
print(json.dumps([card(device) for device in range(number.value)]))
"""
ARCHITECTURES = {
    "Volta": 5, "Turing": 6, "Ampere": 7, "Ada Lovelace": 8, "Hopper": 9, "Blackwell": 10,
}  # fmt: skip
# (threads, shared memory) an SM, shared memory a block: the programming guide's table.
LIMITS = {
    "v100-32": (2048, 96, 96),
    "t4": (1024, 64, 64),
    "a100-80": (2048, 164, 163),
    "a40": (1536, 100, 99),
    "orin-64": (1536, 164, 163),
    "rtx4090": (1536, 100, 99),
    "h100": (2048, 228, 227),
    "b200": (2048, 228, 227),
    "rtx5090": (1536, 100, 99),
}


def together(cards: Sequence[Card]) -> SimulatedGpu:
    """One machine with one device of each of these cards."""
    settings = [card_settings(card) for card in cards]
    each = {key: [values[key] for values in settings] for key in settings[0]}
    each["sm_count"] = [count or 132 for count in each["sm_count"]]
    each["l2_bytes"] = [size or 50 * MIB for size in each["l2_bytes"]]
    del each["peers"]
    integrated = set(each.pop("integrated"))
    return SimulatedGpu(count=len(cards), integrated=integrated == {True}, **each)


def read(gpu: SimulatedGpu, program: str = PROGRAM) -> Any:
    with gpu:
        done = gpu.run(
            [sys.executable, "-S", "-c", program], text=True, capture_output=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    """What a program reads of each card; three machines."""
    discrete = [card for card in all_cards() if not card.unified]
    groups = [discrete[:15], discrete[15:], [card for card in all_cards() if card.unified]]
    return {
        card.name: values
        for cards in groups
        for card, values in zip(cards, read(together(cards)), strict=True)
    }


@pytest.mark.parametrize("card", all_cards(), ids=lambda card: card.name)
def test_a_program_reads_the_catalogue(card: Card, told: dict[str, dict[str, Any]]) -> None:
    found = told[card.name]
    known = {
        "name": card.driver_name,
        "nvml_name": card.driver_name,
        "cuda_total_bytes": card.cuda_total_bytes,
        "sm_count": card.sm_count,
        "l2_bytes": card.l2_bytes,
        "architecture": ARCHITECTURES[card.architecture],
    }
    if card.compute_capability is not None:
        known["capability"] = known["nvml_capability"] = list(card.compute_capability)
    if not card.unified:
        known["nvml_total_bytes"] = card.nvml_total_bytes
    for key, value in known.items():
        assert value is None or found[key] == value, key
    assert found["capability"] == found["nvml_capability"]
    assert found["integrated"] == int(card.unified)
    assert found["cluster_launch"] == found["tensor_maps"] == int(found["capability"] >= [9, 0])
    # Unified memory is the machine's: NVML tells no total.
    assert (found["nvml_total_bytes"] is None) == card.unified
    assert card.unified or found["cuda_total_bytes"] < found["nvml_total_bytes"]


@pytest.mark.parametrize("name", LIMITS)
def test_limits_follow_from_the_capability(name: str, told: dict[str, dict[str, Any]]) -> None:
    found = told[name]
    threads, of_sm, of_block = LIMITS[name]
    assert found["threads_per_sm"] == threads
    assert found["shared_bytes_per_sm"] == of_sm * KIB
    assert found["shared_bytes_per_block"] == of_block * KIB


def test_of_card_and_what_differs_from_it() -> None:
    (one, two) = read(SimulatedGpu.of_card("a100", count=2, cuda_total_bytes=40 * GIB))
    assert one == two
    assert (one["name"], one["capability"]) == ("NVIDIA A100-SXM4-80GB", [8, 0])
    assert one["cuda_total_bytes"] == 40 * GIB


def test_a_capability_that_is_none_ends_the_program() -> None:
    with SimulatedGpu(compute_capability=(8, 1)) as gpu:
        done = gpu.run([sys.executable, "-S", "-c", PROGRAM], text=True, capture_output=True)
    assert done.returncode != 0
    assert 'MEMACCT_SIM_CAPABILITY="8.1" is none of 7.0 7.5 8.0' in done.stderr


@pytest.mark.parametrize(
    ("name", "answer"), [("a100-80", "NVIDIA A100-SXM4-80GB [8, 0]"), ("a1000", "near: a100")]
)
def test_run_on_a_card(name: str, answer: str) -> None:
    show = "\ncard = card(0); print(card['name'], card['capability'])"
    program = PROGRAM.rsplit("assert", 1)[0] + show
    machine = f"cards-{secrets.token_hex(4)}"
    options = ["--gpu", name, "--machine", machine, "--no-runtime"]
    done = subprocess.run(
        [sys.executable, "-m", "memacct", "sim", "run", *options, sys.executable, "-c", program],
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    Path(f"/dev/shm/memacct_sim.{machine}").unlink(missing_ok=True)
    assert answer in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [("h100", [1, 0, 0]), ("l4", [1, 5, 0]), ("rtx4090", [0, 5, 5])],
)
def test_peers_reach_each_other_as_such_cards_do(name: str, told: list[int]) -> None:
    """Peer access by the driver; by NVML over NVLink, and reading at all (5: not supported)."""
    reading, nvlink = 0, 2
    show = f"""
one, two = c_void_p(), c_void_p()
assert cu.cuDeviceCanAccessPeer(byref(number), 0, 1) == 0
found = [number.value]
assert ml.nvmlDeviceGetHandleByIndex_v2(0, byref(one)) == 0
assert ml.nvmlDeviceGetHandleByIndex_v2(1, byref(two)) == 0
for capability in ({nvlink}, {reading}):
    assert ml.nvmlDeviceGetP2PStatus(one, two, capability, byref(number)) == 0
    found.append(number.value)
print(json.dumps(found))
"""
    assert read(SimulatedGpu.of_card(name, count=2), PROGRAM.rsplit("assert", 1)[0] + show) == told
