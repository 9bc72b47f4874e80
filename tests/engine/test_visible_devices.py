"""CUDA_VISIBLE_DEVICES as torch reads it, an oracle that is not ours.

MEMACCT_ENGINE_PYTHON names torch's Python; default ``.venv-gpu/bin/python`` of the repository.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from visible_values import random_value

from memacct import _core
from memacct.sim import SimulatedGpu, build_runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.engine

CHECKS = Path(__file__).with_name("visible_devices_checks.py")
DEFAULT_PYTHON = Path(__file__).parents[2] / ".venv-gpu" / "bin" / "python"
PYTHON = os.environ.get("MEMACCT_ENGINE_PYTHON", str(DEFAULT_PYTHON))
VALUES_COUNT = 5000


@pytest.fixture(scope="module", autouse=True)
def _runtime() -> None:
    if not Path(PYTHON).exists():
        pytest.skip(f"no Python with the CUDA build of torch at {PYTHON}")
    build_runtime(python=PYTHON)


def ask_torch(gpu: SimulatedGpu, values: Sequence[str], start: Sequence[str]) -> dict[str, Any]:
    instances = [instance.uuid for instance in gpu.status().instances]
    done = gpu.run(
        [PYTHON, "-W", "ignore", CHECKS],
        runtime=True,
        python=PYTHON,
        input=json.dumps({"values": values, "start": start, "instances": instances}),
        env={**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("machine", [{"count": 3}, {"count": 2, "mig": ["16GiB", "16GiB", "8GiB"]}])
def test_the_rules_are_torch_s(machine: dict[str, Any]) -> None:
    """Thousands of values, in one process of torch's; tens of them after CUDA's own start."""
    rng = random.Random(92315)  # noqa: S311 (values to try)
    with SimulatedGpu(**machine) as gpu:
        status = gpu.status()
        devices = [device.uuid for device in status.devices]
        instances = [instance.uuid for instance in status.instances]
        values = [random_value(rng, devices + instances) for _ in range(VALUES_COUNT)]
        start = [value for value in values[:200] if value.strip()][:25]
        answer = ask_torch(gpu, values, start)
    assert answer["uuids"] == devices
    failures_count = sum(parsed is None for parsed in answer["parsed"])
    several_count = 0
    for value, parsed in zip(values, answer["parsed"], strict=True):
        if parsed is None:
            continue
        names = instances if value.startswith("MIG-") else devices
        assert _core._visible_devices(value, names) == parsed, value
        several_count += len(parsed) > 1
    assert failures_count < VALUES_COUNT / 20
    assert several_count > VALUES_COUNT / 50  # the values are not all wrong
    if instances:
        return  # what the driver makes of a divided device, torch's parser does not say
    for value, seen in zip(start, answer["seen"], strict=True):
        named = [devices[i].partition("-")[2] for i in _core._visible_devices(value, devices)]
        assert seen == named, value


def test_torch_has_the_instance_that_is_named() -> None:
    with SimulatedGpu(mig=["16GiB", 0, "32GiB"]) as gpu:
        small, large = (instance.uuid for instance in gpu.status().instances)
        values = [large, f"{large},{small}", "0", "MIG-"]
        answer = ask_torch(gpu, [], values)
        hexes = {uuid: uuid.partition("-")[2] for uuid in (small, large)}
        assert answer["seen"] == [[hexes[large]], [hexes[large]], [hexes[small]], []]
