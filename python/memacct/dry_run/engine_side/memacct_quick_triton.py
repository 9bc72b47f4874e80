"""Triton kernels for a GPU whose kernels do nothing: no machine code, the same facts about them.

Triton lowers a kernel through TTIR, TTGIR, LLVM IR and PTX to a cubin; the simulated driver takes
any cubin. What a launch makes of the device's memory is in the facts (metadata) beside it: scratch
memory, which only descriptors need, and how much shared memory a block takes, by which a kernel is
refused. Both are found on the way to LLVM IR. Kernels that have neither descriptors nor matrix
products are not lowered at all: they have no scratch, and their shared memory is small. Of those
whose source already says so, not even TTIR is made.
"""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

STAGES = ("make_ttir", "make_ttgir", "make_llir", "make_ptx", "make_cubin")
LEFT_OUT = "// left out: the GPU is simulated"
# Found in TTIR by these words: products, descriptors, scratch memory, kernels of several parts.
LOWERED = ("tt.dot", "descriptor", "scratch", "warp_spec", "nvvm", "gluon", "ttg.", "ttng.")
# Found in Python: likewise, and what a GPU may lack.
TELLING = ("dot", "desc", "scratch", "warp_spec", "gluon", "fp8", "float8", "f8", "asm", "extern")
LIBRARIES = ("triton", "torch._inductor", "math", "builtins")
KERNEL = re.compile(r"(?:tt\.func public|define (?:dso_local )?ptx_kernel void) @([A-Za-z_]\w*)\(")
_patched: list[Any] = []
PLAIN = {
    "shared": 0,
    "tmem_size": None,
    "global_scratch_size": 0,
    "global_scratch_align": 1,
    "profile_scratch_size": 0,
    "profile_scratch_align": 1,
}


def stop_before_machine_code(compiler: Any) -> None:
    """Patches Triton's compiler for NVIDIA (module ``triton.backends.nvidia.compiler``)."""
    backend = getattr(compiler, "CUDABackend", None)
    if backend is None or not all(hasattr(backend, stage) for stage in STAGES):
        return
    # Some versions have them as static methods, some as methods.
    real = {stage: vars(backend)[stage] for stage in STAGES if stage in vars(backend)}
    if len(real) != len(STAGES):
        return

    def call(self: Any, stage: str, *args: Any, **keywords: Any) -> Any:
        return real[stage].__get__(self, backend)(*args, **keywords)

    def make_ttir(self: Any, module: Any, metadata: Any, *args: Any, **keywords: Any) -> Any:
        if isinstance(module, Unmade):
            return module
        return call(self, "make_ttir", module, metadata, *args, **keywords)

    def make_ttgir(self: Any, module: Any, metadata: Any, *args: Any, **keywords: Any) -> Any:
        text = text_of(module)
        if any(word in text for word in LOWERED) or len(KERNEL.findall(text)) != 1:
            return call(self, "make_ttgir", module, metadata, *args, **keywords)
        metadata["tensordesc_meta"] = []
        return module

    def make_llir(self: Any, module: Any, metadata: Any, *args: Any, **keywords: Any) -> Any:
        text = text_of(module)
        if "#ttg" in text or "ttg." in text:
            return call(self, "make_llir", module, metadata, *args, **keywords)
        metadata.update(PLAIN)
        return text

    def make_ptx(self: Any, source: Any, metadata: Any, *args: Any, **keywords: Any) -> Any:
        names = KERNEL.findall(str(source))
        if len(names) != 1:
            return call(self, "make_ptx", source, metadata, *args, **keywords)
        metadata["name"] = names[0]
        return LEFT_OUT

    def make_cubin(self: Any, source: Any, metadata: Any, *args: Any, **keywords: Any) -> Any:
        if source != LEFT_OUT:
            return call(self, "make_cubin", source, metadata, *args, **keywords)
        return LEFT_OUT.encode()

    for stage in (make_ttir, make_ttgir, make_llir, make_ptx, make_cubin):
        setattr(backend, stage.__name__, stage)
    _patched.append(backend)
    if hasattr(getattr(compiler, "llvm", None), "optimize_module"):
        compiler.llvm = Unoptimised(compiler.llvm)


class Unmade:
    """Stands for the TTIR of a kernel that is not even translated."""

    def __init__(self, name: str) -> None:
        self.text = f"tt.func public @{name}("

    def __str__(self) -> str:
        return self.text


def make_no_ir(compiler: Any) -> None:
    """Patches Triton's front end (``triton.compiler.compiler``): plain kernels stay Python."""
    source = getattr(compiler, "ASTSource", None)
    original = getattr(source, "make_ir", None)
    if source is None or original is None:
        return

    def make_ir(self: Any, *args: Any, **keywords: Any) -> Any:
        types = str(getattr(self, "signature", ""))
        telling = any(word in types for word in TELLING)
        if _patched and not telling and is_plain(self.fn, set()):
            return Unmade(self.fn.__name__)
        return original(self, *args, **keywords)

    source.make_ir = make_ir


def is_plain(kernel: Any, seen: set[int]) -> bool:
    """Whether neither the kernel's source nor that of what it calls has a telling word.

    What it calls of Triton's own or inductor's is plain, but for what has such a name; of other
    modules that it names, nothing is known.
    """
    if id(kernel) in seen:
        return True
    seen.add(id(kernel))
    function, text = getattr(kernel, "fn", None), getattr(kernel, "src", None)
    if function is None or not isinstance(text, str) or not hasattr(function, "__code__"):
        return False
    if any(word in text for word in TELLING):
        return False
    found = inspect.getclosurevars(function)
    for value in {**found.globals, **found.nonlocals}.values():
        if hasattr(value, "src") and hasattr(value, "fn"):
            if not is_plain(value, seen):
                return False
        elif isinstance(value, ModuleType) and not value.__name__.startswith(LIBRARIES):
            return False
    return True


def text_of(module: Any) -> str:
    """The module as text; without source lines where Triton can do that."""
    return str(module.str_nodebug() if hasattr(module, "str_nodebug") else module)


class Unoptimised:
    """Triton's LLVM but for the optimiser: nothing runs the result."""

    def __init__(self, native: Any) -> None:
        self._native = native

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def optimize_module(self, *_args: Any, **_keywords: Any) -> None:
        """Nothing."""
