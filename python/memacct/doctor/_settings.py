"""Rules about environment settings: those that hurt, each with the reason and who says so."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from memacct import _core
from memacct.doctor._types import note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.doctor._facts import Machine
    from memacct.doctor._types import Finding

_OWN_SETTINGS = (
    "MEMACCT_BROKER",
    "MEMACCT_CUDA_LIBRARY",
    "MEMACCT_CPU_ENGINE_PYTHON",
    "MEMACCT_ENGINE_DIR",
    "MEMACCT_ENGINE_ID",
    "MEMACCT_ENGINE_PROCESS",
    "MEMACCT_ENGINE_PYTHON",
    "MEMACCT_NVML_LIBRARY",
    "MEMACCT_REPORT_DIR",
    "MEMACCT_RESERVATIONS",
    "MEMACCT_TIMELINE",
    "MEMACCT_TIMELINE_DIR",
    "MEMACCT_VLLM",
)
_OWN_VALUES = {"MEMACCT_VLLM": ("", "0", "1"), "MEMACCT_TIMELINE": ("", "0", "1", "tensors")}
_OTHERS_OF_OURS = ("MEMACCT_SIM_", "MEMACCT_STAGE_")  # the simulated GPU's and the demo's
_TORCH_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
_ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc", "snmalloc")
_MANY_CPUS = 16


def setting_findings(machine: Machine) -> Iterator[Finding]:
    """Yields what the environment does to memory, or to what can be seen of it."""
    found = [finding for rule in _RULES for finding in rule(machine)]
    yield from found
    if not found:
        yield ok("settings.all", "no setting that is known to hurt")


def _visible_devices(machine: Machine) -> Iterator[Finding]:
    value = machine.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None or machine.gpus.devices is None:
        return
    if not value.strip():
        yield problem(
            "settings.visible_devices",
            "CUDA_VISIBLE_DEVICES is set and empty",
            why="CUDA sees no GPU then; NVML does, so tools show one and engines find none",
            fix="unset CUDA_VISIBLE_DEVICES, or name a GPU: memacct doctor --watch 10s chooses one",
        )
        return
    uuids = [device.uuid for device in machine.gpus.devices]
    if not value.lstrip().startswith("MIG-"):
        uuids = [uuid for uuid in uuids if not uuid.startswith("MIG-")]
    tokens = value.split(",")
    seen = len(_core._visible_devices(value, uuids))  # noqa: SLF001 (torch's rules, in C++)
    if seen < len(tokens):
        level = problem if seen == 0 else warning
        why = (
            "a GPU that is named twice empties the list"
            if seen == 0 and len(set(tokens)) < len(tokens)
            else f"{tokens[seen].strip()!r} names no GPU here, and the list ends before it"
        )
        yield level(
            "settings.visible_devices",
            f"CUDA_VISIBLE_DEVICES={value} makes {seen} of {len(tokens)} GPUs visible",
            why=why,
            fix=f"there {'is' if len(uuids) == 1 else 'are'} {', '.join(uuids)}",
            source="torch/cuda/__init__.py, pytorch#92315",
        )


def _device_order(machine: Machine) -> Iterator[Finding]:
    whole = [d for d in machine.gpus.devices or () if d.parent_uuid is None]
    names = {device.name for device in whole}
    if len(names) > 1 and machine.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        yield warning(
            "settings.device_order",
            f"unlike GPUs ({', '.join(sorted(names))}) and CUDA_DEVICE_ORDER is not PCI_BUS_ID",
            why="CUDA counts the fastest GPU first, NVML and nvidia-smi by the slots: the same "
            "number names different GPUs",
            fix="export CUDA_DEVICE_ORDER=PCI_BUS_ID, or name GPUs by UUID",
            source="CUDA programming guide, CUDA_DEVICE_ORDER",
        )


def _container_devices(machine: Machine) -> Iterator[Finding]:
    value = machine.environ.get("NVIDIA_VISIBLE_DEVICES")
    if value in ("", "void", "none") and not machine.gpus.devices:
        yield warning(
            "settings.container_devices",
            f"NVIDIA_VISIBLE_DEVICES={value}: the container was started without a GPU",
            fix="docker run --gpus all",
            source="NVIDIA Container Toolkit, docker specialized configurations",
        )


def _torch_allocator(machine: Machine) -> Iterator[Finding]:
    for name in _TORCH_ALLOCATOR:
        value = machine.environ.get(name, "").replace(" ", "")
        if "expandable_segments:True" in value:
            yield warning(
                "settings.expandable_segments",
                f"{name} has expandable_segments:True",
                why="vLLM's sleep mode needs a memory pool that such segments cannot serve (older "
                "versions free nothing, or end), and KV connectors refuse it: the pages behind "
                "an address may change",
                fix="leave it out for engines that sleep or transfer their KV cache",
                source="vllm#11743, vllm#40812, pytorch#147851, vllm/config/vllm.py",
            )
        if "backend:cudaMallocAsync" in value:
            yield note(
                "settings.async_allocator",
                f"{name} has backend:cudaMallocAsync",
                why="the driver's pool keeps freed memory until a synchronisation; torch's "
                "counters of segments and fragmentation are not there",
                source="rmm#2510",
            )
    if machine.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING") not in (None, "", "0"):
        yield warning(
            "settings.no_caching",
            "PYTORCH_NO_CUDA_MEMORY_CACHING is set",
            why="each tensor is an allocation of the driver's: very slow, and torch's counters "
            "say 0, so that an engine's profiling sees no activations",
            fix="unset it; it is for compute-sanitizer",
            source="torch CUDA environment variables",
        )


def _modules(machine: Machine) -> Iterator[Finding]:
    if machine.environ.get("CUDA_MODULE_LOADING", "").upper() == "EAGER":
        yield note(
            "settings.module_loading",
            "CUDA_MODULE_LOADING=EAGER",
            why="each process's context holds all kernels: 667 MB instead of 287 MB were seen",
            fix="LAZY, the default since CUDA 12.2, loads what is used",
            source="pytorch#86509",
        )


def _quotas(machine: Machine) -> Iterator[Finding]:
    for name in ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "CUDA_DEVICE_MEMORY_LIMIT"):
        value = machine.environ.get(name)
        if value:
            mps = "MPS" in name
            yield note(
                "settings.quota",
                f"{name}={value}",
                why="a client of MPS still sees the whole card's memory: an engine sizes itself "
                "by what it is refused"
                if mps
                else "HAMi's hook takes this as the card's memory, if it is loaded",
                fix="choose gpu_memory_utilization so that it stays below" if mps else "",
                source="k8s-device-plugin#764" if mps else "HAMi-core",
            )


def _arenas(machine: Machine) -> Iterator[Finding]:
    value = machine.environ.get("MALLOC_ARENA_MAX")
    if value is None and machine.host.cpu_count >= _MANY_CPUS and not _preloaded(machine):
        yield note(
            "settings.arenas",
            f"MALLOC_ARENA_MAX is not set, on {machine.host.cpu_count} processors",
            why=f"glibc keeps freed memory in up to {8 * machine.host.cpu_count} arenas of each "
            "process: RSS stays high after a load",
            fix="MALLOC_ARENA_MAX=4 where host memory is short",
            source="mallopt(3), M_ARENA_MAX",
        )
    elif value == "1":
        yield note(
            "settings.arenas",
            "MALLOC_ARENA_MAX=1",
            why="all threads wait for one lock; what it saves over 2 to 4 is little",
            source="mallopt(3), M_ARENA_MAX",
        )


def _preloaded(machine: Machine) -> str:
    names = machine.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return next((n for n in names if any(each in n for each in _ALLOCATORS)), "")


def _preloads(machine: Machine) -> Iterator[Finding]:
    library = _preloaded(machine)
    if library:
        yield note(
            "settings.allocator",
            f"LD_PRELOAD has {library}",
            why="such allocators keep freed pages by their own rules, and give them back by "
            "MADV_FREE or late: RSS is what they keep, not what is in use (lazy_free in "
            'snapshot(host="mappings"))',
            source="madvise(2), MADV_FREE",
        )
    for name in machine.environ.get("LD_PRELOAD", "").replace(":", " ").split():
        if "/" in name and not Path(name).exists():
            yield warning(
                "settings.preload_missing",
                f"LD_PRELOAD names {name}, which is not there",
                why="each program prints an error and goes on without it",
                fix="install it, or take it out",
                source="ld.so(8)",
            )


def _vllm(machine: Machine) -> Iterator[Finding]:
    environ = machine.environ
    plugins = environ.get("VLLM_PLUGINS")
    if plugins is not None and "memacct" not in [name.strip() for name in plugins.split(",")]:
        yield warning(
            "settings.plugins",
            f"VLLM_PLUGINS={plugins} leaves memacct's plugin out",
            why="vLLM then profiles as ever, whatever MEMACCT_VLLM says, and tells nobody",
            fix=f"VLLM_PLUGINS={plugins},memacct"
            if plugins
            else "unset it, or VLLM_PLUGINS=memacct",
            source="vllm/plugins/__init__.py",
        )
    if environ.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS") == "0":
        yield warning(
            "settings.cuda_graphs",
            "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0",
            why="CUDA graphs are captured after the KV cache has taken all that was asked for: "
            "what they take comes on top",
            fix="leave it out (it is on from 0.20.2 on), or lower gpu_memory_utilization",
            source="vllm/v1/worker/gpu_worker.py, vllm#7553",
        )
    if environ.get("VLLM_ENABLE_STARTUP_PLAN") == "1":
        yield note(
            "settings.startup_plan",
            "VLLM_ENABLE_STARTUP_PLAN=1",
            why="a later start takes the KV cache's size from a file instead of measuring: what "
            "disturbed the first measurement stays",
            source="vllm/v1/worker/startup_plan.py",
        )
    if environ.get("VLLM_SKIP_P2P_CHECK") == "0":
        yield note(
            "settings.p2p_check",
            "VLLM_SKIP_P2P_CHECK=0",
            why="vLLM tries each pair of GPUs from processes of their own: for that time "
            "they hold contexts on them",
            source="vllm/distributed/device_communicators/custom_all_reduce_utils.py",
        )


def _ray(machine: Machine) -> Iterator[Finding]:
    environ = machine.environ
    if "RAY_ADDRESS" in environ and environ.get("MEMACCT_VLLM") == "1":
        copied = environ.get("VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY", "")
        if "MEMACCT_" not in copied:
            yield note(
                "settings.ray",
                "Ray's workers on other nodes are not given MEMACCT_ variables",
                fix="VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY=MEMACCT_, or --additional-config",
                source="vllm/ray/ray_env.py",
            )


def _own(machine: Machine) -> Iterator[Finding]:
    for name, allowed in _OWN_VALUES.items():
        value = machine.environ.get(name, "")
        if value not in allowed:
            yield problem(
                "settings.memacct",
                f"{name}={value} is not understood",
                why="the engine ends its start with this",
                fix=f"allowed are {', '.join(each for each in allowed if each)}",
            )
    for name in machine.environ:
        if not name.startswith("MEMACCT_") or name.startswith(_OTHERS_OF_OURS):
            continue
        if name not in _OWN_SETTINGS:
            near = difflib.get_close_matches(name, _OWN_SETTINGS, n=1)
            yield warning(
                "settings.memacct",
                f"{name} is no setting of memacct",
                fix=f"did you mean {near[0]}?" if near else "unset it",
            )


_RULES: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
    _visible_devices,
    _device_order,
    _container_devices,
    _torch_allocator,
    _modules,
    _quotas,
    _arenas,
    _preloads,
    _vllm,
    _ray,
    _own,
)
