"""Stands for CuTe-DSL (nvidia-cutlass-dsl) and quack, in which FlashAttention 4 writes its kernels.

vLLM requires these packages, so a machine that is to be foretold has them; where they are not
installed, FlashAttention 4 ends here with an ImportError on every Blackwell. With this its own
Python runs: it decides how many parts a request is split into and allocates their buffers. Only
what it would compile does nothing. Where CuTe-DSL is installed it is used, but for its compiler:
the code that it makes has its own CUDA runtime in it, which finds no kernels on a simulated GPU.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any

from memacct_after_import import after_import

PACKAGES = ("cutlass", "quack")
#: What imports them without asking first: FlashAttention 4, and what vLLM warms up on capability
#: 10.x whatever attention it has.
WANTED_BY = frozenset({
    "vllm.vllm_flash_attn.cute",
    "vllm.model_executor.layers.fused_moe.router.bf16x3_router_gemm_cutedsl",
})  # fmt: skip
COMPILER = "cutlass.base_dsl.compiler"

_applied: list[bool] = []


def apply() -> bool:
    """Has the packages found once something needs them; False if they are installed.

    Not before: whether they are there is asked for other choices too, which go on as they would.
    """
    if _applied:
        return _applied[0]
    there = any(importlib.util.find_spec(name) is not None for name in PACKAGES)
    if there:
        after_import(COMPILER, _compile_nothing)
    else:
        sys.meta_path.insert(0, _Finder())
    _applied.append(not there)
    return not there


def _compile_nothing(module: ModuleType) -> None:
    """Has `cute.compile` answer at once, with something that can be called."""
    found = getattr(module, "CompileCallable", None)
    if found is not None:
        found.__call__ = lambda *_, **__: absent("compiled")()


# An absent number is 1: kernels' shapes are reckoned with it, and nobody looks at them.
_ONE = 1
_ARITHMETIC = [
    "add",
    "sub",
    "mul",
    "floordiv",
    "truediv",
    "mod",
    "pow",
    "lshift",
    "rshift",
    "and",
    "xor",
    "neg",
]


class _Numeric:
    """Sums and comparisons of what is not there."""

    def __int__(self) -> int:
        return _ONE

    __index__ = __int__

    def __iter__(self) -> Any:
        return iter(())


for _name in _ARITHMETIC:
    for _prefix in ("", "r"):
        setattr(_Numeric, f"__{_prefix}{_name}__", lambda *_: _ONE)
# Limits of a device that kernels assert are kept, but nothing is above them.
for _name, _answer in {"lt": False, "gt": False, "le": True, "ge": True}.items():
    setattr(_Numeric, f"__{_name}__", lambda *_, answer=_answer: answer)


class _AbsentType(_Numeric, type):
    """A class that is not there: its attributes are such classes too."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return absent(name)

    def __getitem__(cls, key: object) -> Any:
        return cls

    def __or__(cls, other: object) -> Any:  # in annotations
        return cls

    __ror__ = __or__


def absent(name: str) -> Any:
    """A class of that name: to inherit from, to call, to decorate with, to ask for anything."""
    return _AbsentType(name, (_Absent,), {})


def _is_code(given: object) -> bool:
    return isinstance(given, type) or hasattr(given, "__code__")


class _Absent(_Numeric):
    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        # A decorator returns what it is given.
        alone = cls.__bases__ == (_Absent,) and len(arguments) == 1 and not options
        return arguments[0] if alone and _is_code(arguments[0]) else super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **_: Any) -> Any:
        alone = len(arguments) == 1 and _is_code(arguments[0])
        return arguments[0] if alone else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return absent(name)()

    def __getitem__(self, key: object) -> Any:
        return self


class _Package(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = absent(name)
        setattr(self, name, found)
        return found


class _Finder(MetaPathFinder, Loader):
    def __init__(self) -> None:
        self.wanted = False

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        self.wanted = self.wanted or fullname in WANTED_BY
        if not self.wanted or fullname.partition(".")[0] not in PACKAGES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = _Package(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""
