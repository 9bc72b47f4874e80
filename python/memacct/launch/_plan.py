"""What a start asks for: how much of how many GPUs, and which of them it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct import _core
from memacct._errors import ConfigError
from memacct._units import format_bytes
from memacct.accounting.budget import requested_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memacct._core import DeviceMemory

_UTILIZATION = ("--gpu-memory-utilization", "--gpu_memory_utilization")
_GROUPS = (
    ("--tensor-parallel-size", "--tensor_parallel_size", "-tp"),
    ("--pipeline-parallel-size", "--pipeline_parallel_size", "-pp"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be found.

    Attributes:
        uuids: the GPUs, or MIG instances, that may be taken.
        count: how many.
        need_bytes: what is to be free of each, by UUID; None: whatever there is.
        why: where the need comes from, in words.
    """

    uuids: tuple[str, ...]
    count: int
    need_bytes: Mapping[str, int] | None
    why: str

    @property
    def need_text(self) -> str:
        """The need in words."""
        if self.need_bytes is None:
            return "a GPU" if self.count == 1 else f"{self.count} GPUs"
        sizes = sorted(set(self.need_bytes.values()))
        low, high = format_bytes(sizes[0]), format_bytes(sizes[-1])
        size = low if low == high else f"{low} to {high}"
        return f"{size} on {'a GPU' if self.count == 1 else f'each of {self.count} GPUs'}"


def make_plan(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    gpu: str = "auto",
    count: int | None = None,
    need_bytes: int | None = None,
) -> Plan:
    """Returns what a start asks for, on the GPUs that are here now.

    Args:
        command: where vLLM's own options are read: --gpu-memory-utilization says the need if
            `need_bytes` does not, --tensor-parallel-size and --pipeline-parallel-size the count.
        environ: CUDA_VISIBLE_DEVICES there leaves out what it does not name.
        gpu: "auto", or indices and UUIDs (or beginnings of them), joined by commas.
        count: GPUs.
        need_bytes: what is to be free of each.

    Raises:
        ConfigError: an unknown GPU, or more than there are, or than any of them has.
        SourceUnavailableError: there is no GPU.
    """
    every = _core.read_devices("all")
    visible = _visible(every, environ)
    named = visible if gpu == "auto" else _named(gpu, visible)
    devices = [each for one in named for each in _startable(one, every)]
    unique = {device.uuid: device for device in devices}
    listed = len(named) if gpu != "auto" else 1
    wanted = count if count is not None else max(listed, count_of(command))
    if wanted > len(unique):
        there = f"{len(unique)} GPU{'s' if len(unique) != 1 else ''}"
        raise ConfigError(f"count={wanted}: there {'are' if len(unique) != 1 else 'is'} {there}")
    needs, why = _needs(tuple(unique.values()), command, need_bytes)
    if needs is not None:
        _check_possible(tuple(unique.values()), needs, wanted)
    return Plan(uuids=tuple(unique), count=wanted, need_bytes=needs, why=why)


def count_of(command: Sequence[str]) -> int:
    """Returns how many GPUs a vLLM command asks for: its ranks."""
    ranks = 1
    for names in _GROUPS:
        text = _option(command, names)
        ranks *= int(text) if text is not None and text.isdigit() and int(text) else 1
    return ranks


def utilization_of(command: Sequence[str]) -> float | None:
    """Returns the share of each GPU that a vLLM command asks for; None: it does not say."""
    text = _option(command, _UTILIZATION)
    try:
        share = float(text) if text is not None else 0.0
    except ValueError:
        return None
    return share if 0 < share <= 1 else None


def _option(command: Sequence[str], names: Sequence[str]) -> str | None:
    found = None
    for place, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else next(iter(command[place + 1 : place + 2]), None)
    return found


def _needs(
    devices: Sequence[DeviceMemory], command: Sequence[str], need_bytes: int | None
) -> tuple[dict[str, int] | None, str]:
    if need_bytes is not None:
        return {device.uuid: need_bytes for device in devices}, "--need"
    share = utilization_of(command)
    if share is None:
        return None, ""
    needs = {device.uuid: requested_bytes(device.total_bytes, share) for device in devices}
    return needs, f"--gpu-memory-utilization {share:g}"


def _check_possible(devices: Sequence[DeviceMemory], needs: Mapping[str, int], count: int) -> None:
    enough = [d for d in devices if d.total_bytes - (d.reserved_bytes or 0) >= needs[d.uuid]]
    if len(enough) < count:
        sizes = ", ".join(f"{_called(d)} {format_bytes(d.total_bytes)}" for d in devices)
        need = format_bytes(min(needs.values()))
        raise ConfigError(f"need={need} is more than a GPU here has when it is empty: {sizes}")


def _startable(device: DeviceMemory, every: Sequence[DeviceMemory]) -> list[DeviceMemory]:
    """What a program can run on: of a divided GPU its instances."""
    instances = [each for each in every if each.parent_uuid == device.uuid]
    return instances or [device]


def _visible(every: Sequence[DeviceMemory], environ: Mapping[str, str]) -> list[DeviceMemory]:
    whole = [device for device in every if device.parent_uuid is None]
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return whole
    named = list(every) if value.lstrip().startswith("MIG-") else whole
    places = _core._visible_devices(value, [device.uuid for device in named])  # noqa: SLF001
    if not places:
        raise ConfigError(f"CUDA_VISIBLE_DEVICES={value!r} names none of {_all(named)}")
    is_numbers = value.lstrip()[:1].isdigit()
    if (
        is_numbers
        and len({device.name for device in whole}) > 1
        and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
    ):
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES={value!r} counts unlike GPUs in CUDA's own order, which is not "
            "known from outside; name UUIDs, or set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return [named[place] for place in places]


def _named(gpu: str, devices: Sequence[DeviceMemory]) -> list[DeviceMemory]:
    found = []
    for token in (part.strip() for part in gpu.split(",")):
        if token.isdigit():
            fitting = [device for device in devices if device.index == int(token)]
        else:
            fitting = [device for device in devices if token and device.uuid.startswith(token)]
        if len(fitting) != 1:
            what = "several of" if fitting else "none of"
            raise ConfigError(f"gpu={token!r} names {what} {_all(devices)}")
        found += fitting
    return found


def _all(devices: Sequence[DeviceMemory]) -> str:
    return ", ".join(_called(device) for device in devices) or "no GPU"


def _called(device: DeviceMemory) -> str:
    return device.uuid if device.index is None else f"{device.index} ({device.uuid})"
