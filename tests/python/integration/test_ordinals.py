"""What a CUDA ordinal means before the driver is initialised: what it means after, or nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess
from visible_values import random_value

from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALIKE = {"count": 3}
UNLIKE = {
    "count": 3,
    "name": ["NVIDIA L4", "NVIDIA H100", "NVIDIA A100"],
    "total_bytes": ["24GiB", "80GiB", "80GiB"],
    "speeds": [1, 3, 2],
}
# One model and one name, of two makers: which one clocks higher, NVML does not say.
TWO_BOARDS = {"count": 2, "speeds": [1, 2]}
TWO_SIZES = {"count": 2, "total_bytes": ["40GiB", "80GiB"]}
DIVIDED = {"count": 2, "mig": ["16GiB", 0, "32GiB"]}
ONE_INSTANCE = {"mig": [0, "16GiB"]}

Environment = dict[str, str]


def seen(gpu: SimulatedGpu, environments: Sequence[Environment]) -> list[dict[str, Any]]:
    """What each environment's ordinals are, before cuInit and after; each in its own process."""
    source = """
found = {"before": [attempt(_core.read_device, n) for n in range(4)]}
found["error"] = cuda().cuInit(0)
if not found["error"]:
    found["after"] = [attempt(_core.read_device, n) for n in range(4)]
result = {when: value if when == "error" else [r.get("uuid") or r for r in value]
          for when, value in found.items()}
"""
    with DeviceProcess(gpu) as process:
        answers: list[dict[str, Any]] = process.run(
            f"""
result = []
for environment in {list(environments)!r}:
    setting = f"os.environ.update({{environment!r}})"
    result.append(in_fork(setting + {source!r})["result"])
"""
        )
    return answers


def one(machine: Mapping[str, Any], **environment: str) -> dict[str, Any]:
    with SimulatedGpu(**machine) as gpu:
        (answer,) = seen(gpu, [environment])
    return answer


def uuids(values: Sequence[Any]) -> list[str]:
    """The devices, of what was read of each ordinal; the rest must be refusals."""
    assert all(isinstance(v, str) or v["raised"] == "ValueError" for v in values)
    return [value for value in values if isinstance(value, str)]


@pytest.mark.parametrize("machine", [ALIKE, UNLIKE, TWO_BOARDS, TWO_SIZES, DIVIDED, ONE_INSTANCE])
def test_no_ordinal_is_guessed(machine: dict[str, Any]) -> None:
    """Told before cuInit, it is what it is after; where nothing is in doubt, it is told."""
    rng = random.Random(4)  # noqa: S311 (values to try)
    with SimulatedGpu(**machine) as gpu:
        status = gpu.status()
        names = [each.uuid for each in (*status.devices, *status.instances)]
        environments: list[Environment] = [{}, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}]
        for i in range(40):
            order = ("FASTEST_FIRST", "PCI_BUS_ID")[i % 2]
            value = random_value(rng, names)
            environments.append({"CUDA_VISIBLE_DEVICES": value, "CUDA_DEVICE_ORDER": order})
        answers = seen(gpu, environments)
    told_count = 0
    for environment, answer in zip(environments, answers, strict=True):
        before = uuids([v for v in answer["before"] if "SourceUnavailable" not in str(v)])
        after = uuids(answer.get("after", []))
        assert before == after[: len(before)], environment
        told_count += len(before)
        by_place = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        if "mig" not in machine and (machine is ALIKE or by_place):
            assert before == after, environment
    assert told_count > 5  # not all were refused


def test_alike_devices_keep_their_places() -> None:
    answer = one(ALIKE)
    assert len(uuids(answer["after"])) == 3
    assert uuids(answer["before"]) == uuids(answer["after"])


@pytest.mark.parametrize("machine", [UNLIKE, TWO_BOARDS, TWO_SIZES])
def test_a_number_among_unlike_devices_is_refused(machine: dict[str, Any]) -> None:
    for environment in ({}, {"CUDA_VISIBLE_DEVICES": "1,0"}):
        answer = one(machine, **environment)
        assert uuids(answer["before"]) == []
        text = answer["before"][0]["text"]
        assert "CUDA_DEVICE_ORDER" in text
        for uuid in uuids(answer["after"]):
            assert uuid in text
    assert len(uuids(one(machine, CUDA_DEVICE_ORDER="PCI_BUS_ID")["before"])) == machine["count"]


def test_the_fastest_device_is_first_after_all() -> None:
    with SimulatedGpu(**UNLIKE) as gpu:
        l4, h100, a100 = (device.uuid for device in gpu.status().devices)
        (answer,) = seen(gpu, [{}])
        assert uuids(answer["after"]) == [h100, a100, l4]
        named = {"CUDA_VISIBLE_DEVICES": f"{a100},{l4}"}
        (answer,) = seen(gpu, [named])
        assert uuids(answer["before"]) == uuids(answer["after"]) == [a100, l4]


def test_what_an_ordinal_of_a_divided_device_means() -> None:
    with SimulatedGpu(**DIVIDED) as gpu:
        small, large = (instance.uuid for instance in gpu.status().instances)
        whole = gpu.status().devices[0].uuid
        unnamed, named, past, twice = seen(
            gpu,
            [
                {"CUDA_VISIBLE_DEVICES": visible}
                for visible in ("0", f"{large},{small}", f"MIG-{whole}/9/0", f"{large},{large}")
            ],
        )
    assert uuids(unnamed["before"]) == []
    assert small in unnamed["before"][0]["text"]
    assert large in unnamed["before"][0]["text"]
    assert uuids(unnamed["after"]) == [small]
    for answer in (named, past):
        assert uuids(answer["before"]) == uuids(answer["after"]) == [large]
    assert "one MIG instance" in named["before"][1]["text"]
    assert uuids(twice["before"]) == []
    assert twice["error"] == 100


def test_the_only_instance_is_the_one() -> None:
    answer = one(ONE_INSTANCE)
    assert len(uuids(answer["before"])) == 1
    assert uuids(answer["before"]) == uuids(answer["after"])


def test_an_environment_that_changes_later_does_not_matter() -> None:
    with SimulatedGpu(**ALIKE) as gpu:
        first, second, _ = (device.uuid for device in gpu.status().devices)
        with DeviceProcess(gpu, env={"CUDA_VISIBLE_DEVICES": "1,0"}) as process:
            process.run("call('cuInit', 0)")
            for visible in ("0,1", "", "-1", "MIG-x", "2"):
                process.run(f"os.environ['CUDA_VISIBLE_DEVICES'] = {visible!r}")
                assert [process.read(n)["uuid"] for n in (0, 1)] == [second, first]
                error = process.run("result = attempt(_core.read_device, 2)")
                assert "CUDA driver has 2 devices" in error["text"]
