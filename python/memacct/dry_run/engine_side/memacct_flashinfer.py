"""Answers FlashInfer's JIT: its modules are there at once, and their functions do nothing.

What FlashInfer allocates it allocates in Python, through PyTorch: workspaces, outputs, tables.
That stays; only the modules that it would compile with nvcc, download or write in CuTe-DSL are
replaced, as nothing that they do to the device can be seen here. Fused experts allocate in C++ too:
what is known of that is allocated in their stead (`memacct_flashinfer_experts`), and `notes` tells
what is not.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from memacct_after_import import after_import

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_JIT = "flashinfer.jit"
_PLAN_LENGTH = 16  # of the lists that plan() answers; they are only handed on to run()
# Functions that allocate while they run: launchers of fused experts, TensorRT-LLM's and CUTLASS's.
_EXPERTS = re.compile(r"trtllm_\w+_moe|run_moe\w*")

_ALL_REDUCE = "vllm.distributed.device_communicators.flashinfer_all_reduce"

#: Functions of fused experts that were called, and whether their buffers were allocated.
_experts: dict[str, bool] = {}


def installed() -> bool:
    """Whether this Python has FlashInfer, without importing it: that would initialise CUDA."""
    return importlib.util.find_spec("flashinfer") is not None


def apply() -> bool:
    """Has each of FlashInfer's JIT modules answered as it is imported; returns `installed()`.

    To be called before anything imports FlashInfer, in each process.
    """
    if not installed():
        return False
    # A machine that is to be foretold has the kernels, compiled or to be compiled.
    os.environ.setdefault("VLLM_HAS_FLASHINFER_CUBIN", "1")
    after_import(_JIT, answer)
    return True


def notes() -> list[str]:
    """What is to be said, for people, of the functions that were called in this process."""
    told = []
    for name, known in sorted(_experts.items()):
        what = f"FlashInfer's experts ({name}) allocate while they run"
        if known:
            told.append(f"{what}: here by the sizes in its source, without their GEMMs' own")
        else:
            told.append(f"{what}, which is not known and not counted: the peak is too low")
    all_reduce = sys.modules.get(_ALL_REDUCE)
    if getattr(all_reduce, "_fi_ar_workspace_failed", False):
        told.append(
            "FlashInfer's all-reduce is not simulated: the model was compiled without it, and its"
            " workspace is what public readings say, in other non-torch"
        )
    return told


class Nothing:
    """A function, object or module that is not there: it takes everything and answers itself.

    As a number it is 0, as a sequence empty.
    """

    def __init__(self, name: str = "nothing") -> None:
        self.__name__ = name

    def __call__(self, *arguments: Any, **__: Any) -> Any:
        """Itself, but for functions that are to answer numbers."""
        if _EXPERTS.fullmatch(self.__name__):
            from memacct_flashinfer_experts import allocate

            known = allocate(self.__name__, arguments)
            _experts[self.__name__] = known and _experts.get(self.__name__, True)
        # Lists of numbers, which typed operators ask for.
        return [0] * _PLAN_LENGTH if self.__name__ in {"plan", "Plan"} else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self.__dict__[name] = Nothing(name)
        return found

    def __getitem__(self, key: object) -> Any:
        return getattr(self, key) if isinstance(key, str) else 0

    def __int__(self) -> int:
        return 0

    __index__ = __int__

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Any:
        return iter(())


class Spec:
    """Stands for one of FlashInfer's JitSpecs."""

    is_compiled = True
    sources: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def build_and_load(self, *_: Any, **__: Any) -> Nothing:
        """The module."""
        return Nothing(self.name)

    load = try_load = build_and_load

    def build(self, *_: Any, **__: Any) -> None:
        """Nothing is to be built."""

    def get_library_path(self) -> str:
        """A path that nobody opens."""
        return os.devnull

    jit_library_path = aot_path = property(get_library_path)

    def get_library_paths(self) -> tuple[str, ...]:
        """None: each would be opened, to be told where its kernels are."""
        return ()


def answer(module: ModuleType) -> None:
    """Replaces what one module of flashinfer.jit generates, compiles, downloads and loads."""
    for name, value in list(vars(module).items()):
        if name.startswith("gen_") and callable(value):
            setattr(module, name, _generator(name))
        elif name == "build_and_load_cute_dsl_kernel":
            setattr(module, name, lambda *_, **__: Nothing("kernel"))
        elif name == "get_artifact":
            setattr(module, name, lambda *_, **__: b"")
        elif name in {"setup_cubin_loader", "load_cuda_ops"}:
            setattr(module, name, Nothing(name))
        elif isinstance(value, type) and "build_and_load" in vars(value):
            value.build_and_load = lambda self, *_, **__: Nothing(getattr(self, "name", "module"))  # type: ignore[attr-defined]


def _generator(name: str) -> Callable[..., Spec]:
    def generate(*_: Any, **__: Any) -> Spec:
        return Spec(name)

    generate.__name__ = name
    return generate
