"""Makes a start on the simulated GPU quick, without changing a byte that it takes of the device.

Runs in the engine's own Python, imports nothing of memacct, and is to be applied before vLLM is
imported, in every process of the engine. Each patch looks for what it changes: where a version of
vLLM, torch or Triton lacks it, the start goes on, only slower.

MEMACCT_DRYRUN_QUICK=0 leaves all of it out; a list of names ("triton,save") takes only those.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct_after_import import AfterImport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SWITCH = "MEMACCT_DRYRUN_QUICK"
FOLDER = "MEMACCT_DRYRUN_FOLDER"
# The simulator's: longer fills are cut, so that they take less of the host's memory.
FILL_LIMIT = "MEMACCT_SIM_FILL_LIMIT_BYTES"
# Objects between collections while modules are imported.
IMPORTING = (100_000, 50, 1000)
# And then: Python's own for what is young, so that garbage which holds memory of the device goes as
# early as without this; what has survived is looked at a hundred times less often, since a model
# that is traced makes millions of objects. The engine collects everything before it measures.
_young, _middle, _ = gc.get_threshold()
STARTING = (_young, _middle, 1000)


def inspect_here(registry: Any) -> None:
    """Looks at the model's class in this process; vLLM starts another one for it.

    It does so lest the look initialises CUDA here, which a process that goes on to fork must not
    do. Dry runs spawn.
    """
    if hasattr(registry, "_run_in_subprocess"):
        registry._run_in_subprocess = lambda function: function()  # noqa: SLF001


def freeze_imports(gpu_worker: Any) -> None:
    """Keeps what was imported out of the many collections of a start.

    The engine collects garbage before it looks at memory. What exists before the device is
    initialised holds none of its memory, so leaving it out changes no reading.
    """
    worker = getattr(gpu_worker, "Worker", None)
    original = getattr(worker, "init_device", None)
    if worker is None or original is None:
        return

    def init_device(self: Any, *args: Any, **keywords: Any) -> Any:
        gc.freeze()
        gc.set_threshold(*STARTING)
        return original(self, *args, **keywords)

    worker.init_device = init_device


def no_thaw(gc_utils: Any) -> None:
    """Captures graphs with collections off, as vLLM does, without thawing the imports after it."""
    original = getattr(gc_utils, "freeze_gc_for_cudagraph_capture", None)
    if original is None:
        return

    @contextmanager
    def paused() -> Iterator[None]:
        if os.environ.get("VLLM_ENABLE_CUDAGRAPH_GC", "0") != "0":
            with original():
                yield
            return
        was_enabled = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            yield
        finally:
            gc.collect()
            if was_enabled:
                gc.enable()

    gc_utils.freeze_gc_for_cudagraph_capture = paused


def elsewhere(module: str, function: str) -> Callable[[Any], None]:
    """A patch in another file, which is imported when it is needed."""

    def patch(patched: Any) -> None:
        getattr(importlib.import_module(module), function)(patched)

    return patch


TRITON, COMPILE = "memacct_quick_triton", "memacct_quick_compile"
# By their names in MEMACCT_DRYRUN_QUICK: what is patched when which module has been imported.
PATCHES: dict[str, dict[str, Callable[[Any], None]]] = {
    "inspect": {"vllm.model_executor.models.registry": inspect_here},
    "triton": {
        "triton.backends.nvidia.compiler": elsewhere(TRITON, "stop_before_machine_code"),
        "triton.compiler.compiler": elsewhere(TRITON, "make_no_ir"),
    },
    "save": {
        "vllm.compilation.decorators": elsewhere(COMPILE, "save_nothing"),
        "torch._dynamo.package": elsewhere(COMPILE, "no_sources"),
    },
    "freeze": {
        "vllm.v1.worker.gpu_worker": freeze_imports,
        "vllm.utils.gc_utils": no_thaw,
    },
}
_helpers: list[subprocess.Popen[bytes]] = []


def apply() -> tuple[str, ...]:
    """Makes this process's start quick; returns the names of what was asked for."""
    chosen = os.environ.get(SWITCH, "1")
    names = tuple(PATCHES) if chosen == "1" else tuple(n for n in chosen.split(",") if n in PATCHES)
    own_caches(names)
    if not names:
        return ()
    patches = {module: patch for name in names for module, patch in PATCHES[name].items()}
    for module in patches.keys() & sys.modules.keys():
        patches[module](sys.modules[module])
    sys.meta_path.insert(0, AfterImport(patches.get))
    if "freeze" in names:
        gc.set_threshold(*IMPORTING)
    os.environ.setdefault(FILL_LIMIT, str(16 << 20))
    if "triton" in names and multiprocessing.parent_process() is None:
        build_helper(Path(os.environ["TRITON_CACHE_DIR"]))
    return names


def build_helper(cache: Path) -> None:
    """Has Triton's helper library, which it compiles at its first kernel, compiled meanwhile.

    By another process, and only if none is there: it takes seconds, for which this process has
    other work.
    """
    if not any(cache.glob("*/cuda_utils*")):
        code = "from triton.backends.nvidia.driver import CudaUtils; CudaUtils()"
        quiet = subprocess.DEVNULL
        _helpers.append(
            subprocess.Popen([sys.executable, "-c", code], stdin=quiet, stdout=quiet, stderr=quiet)
        )


def own_caches(names: Sequence[str]) -> None:
    """Sets where compilers keep what they made: never where real starts look.

    A kernel without machine code in the user's own Triton cache would break the next start on a
    GPU. Ours is kept between dry runs; what the engine and inductor keep goes with the run.
    """
    run = os.environ.get(FOLDER)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    ours = Path(cache) / "memacct"
    place = Path(run) / "cache" if run else ours / "dryrun-cache"
    kept = ours / "dryrun-kernels-1" if "triton" in names else place / "triton"
    os.environ["TRITON_CACHE_DIR"] = str(kept)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(place / "inductor")
    os.environ["VLLM_CACHE_ROOT"] = str(place / "vllm")
