"""Carries out PyTorch's operators on small tensors of the simulated GPU, so that sizes are right.

Kernels of the simulated GPU do nothing, but engines size tensors by their results: LoRA asks
`torch.unique` how many adapters a batch has, samplers and routers index by what was sorted.

Here, and not in the simulated runtime, because a kernel is known there only by its mangled name
and the layout of its arguments, which change with every torch, and `nonzero` or `unique` are many
kernels of CUB each; an operator and its schema stay the same. So the kernel that an operator has
for CUDA is wrapped (`torch.library`): it runs as it is, hence allocates what it always does, and
is asked nothing; then the CPU's kernel writes the result where the device's would have, because
the simulated device's memory is memory of this process. Operators whose result has as many
elements as its data say (`nonzero`, `unique`) are done on the CPU at once, as the device's would
allocate by a count that nobody counted. A mode (`TorchDispatchMode`) would see every operator,
cost each some microseconds, be off in other threads, and keep Dynamo from compiling.

New small tensors of integers are zero, those too that an operator on a large one answers with
(`topk` of logits): what kernels leave there is then a valid token and index, and the same at every
start.

Left alone: tensors of more elements than `LIMITS`, whatever is captured into a CUDA graph,
what the CPU refuses (an index that was never computed). torch before 2.9 does not hand out the
kernel that is to be wrapped: only operators of the second kind are carried out there.

Run by the engine's own Python; imports nothing of memacct. A dry run applies it in each of the
engine's processes; `python memacct_small_results.py PROGRAM ...` runs any program with it.
"""

# ruff: noqa: SLF001 (a kernel is found and wrapped by torch's own tools, which are private)

from __future__ import annotations

import os
import runpy
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from memacct_small_tensors import (
    LIMITS,
    SIZED_LIMITS,
    are_small,
    blank,
    device_of,
    is_plain_copy,
    is_small,
    on_host,
    tensor_of,
    to_device,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Kernel = Callable[..., Any]

#: Operators whose result has the size that its arguments say; with their in-place forms.
VALUES = """
    abs add all amax amin aminmax any arange argmax argmin argsort bitwise_and bitwise_left_shift
    bitwise_not bitwise_or bitwise_right_shift bitwise_xor bucketize cat ceil clamp clamp_max
    clamp_min copy cumprod cumsum div eq equal eye fill flip floor floor_divide fmod gather ge gt
    index index_add index_copy index_fill _index_put_impl index_select isin kthvalue le linspace
    logical_and logical_not logical_or logical_xor lt masked_fill masked_scatter max maximum mean
    min minimum mul ne neg pow prod put reciprocal remainder roll round rsub scatter scatter_add
    scatter_reduce searchsorted sign sort sqrt sub sum take topk tril tril_indices triu
    triu_indices trunc where zero _cummax_helper _cummin_helper __lshift__ __rshift__ __ilshift__
    __irshift__
    """.split()  # noqa: SIM905

#: Operators whose result has the size that its data say.
SIZED = """
    bincount masked_select nonzero repeat_interleave unique_consecutive unique_dim
    unique_dim_consecutive _unique _unique2
    """.split()  # noqa: SIM905

#: Called by torch itself with a number on the device, which cannot be handed to Python.
_NOT_WRAPPED = frozenset({
    "aten::pow.Tensor_Tensor_out", "aten::isin.Tensor_Tensor_out", "aten::searchsorted.Tensor_out",
    "aten::bucketize.Tensor_out",
})  # fmt: skip
#: Would call `searchsorted` so; hence done on the CPU at once.
_SCALARS = frozenset({"aten::searchsorted.Scalar", "aten::bucketize.Scalar"})

#: Elements that a wrong count may ask for.
_LIMIT_RESULT_COUNT = 1 << 24
_NUMBERS = frozenset({bool, int, float})
#: The CPU refuses indices out of range, kinds of numbers that it cannot work with, ...
_REFUSALS = (RuntimeError, LookupError, ValueError, TypeError, NotImplementedError)

#: How often each operator was carried out, and how often the CPU refused.
done_count: dict[str, int] = {}
refused_count: dict[str, int] = {}

_libraries: list[torch.library.Library] = []


def apply() -> int:
    """Wraps the operators of this process; returns how many, 0 where there is no simulated GPU."""
    if _libraries:
        return 0
    if "MEMACCT_SIM_MACHINE" not in os.environ:
        return 0
    if "libmemacct_sim_core" not in Path("/proc/self/maps").read_text():
        return 0
    _libraries.append(torch.library.Library("aten", "IMPL"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is replaced
        count = sum(_wrap(op, _sized) for op in _overloads(SIZED) if not op._schema.is_mutable)
        if hasattr(torch.library, "get_kernel"):
            names = [*VALUES, *(f"{name}_" for name in VALUES)]
            for op in _overloads(names):
                count += _wrap(op, _sized if op.name() in _SCALARS else _valued)
            count += _wrap(torch.ops.aten.empty.memory_format, _emptied)
            count += _wrap(torch.ops.aten.empty_strided.default, _emptied)
    return count


def _overloads(names: Iterable[str]) -> Iterator[Any]:
    """The operators of these names that have a kernel for CUDA; `copy_` has one for all devices."""
    for name in names:
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            op = getattr(packet, overload)
            if op.name() not in _NOT_WRAPPED and _has_kernel(op.name()):
                yield op


def _has_kernel(name: str) -> bool:
    """Whether there is a kernel; some operators are TorchScript's alone."""
    if not torch._C._dispatch_has_kernel(name):
        return False
    return name == "aten::copy_" or bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")
    )


def _wrap(op: Any, make: Callable[[Any, Kernel], Kernel]) -> int:
    """Puts `make`'s kernel in the place of the operator's for CUDA."""
    if hasattr(torch.library, "get_kernel"):
        kernel = torch.library.get_kernel(op.name(), "CUDA").call_boxed
    else:
        kernel = _on_cpu_kernel(op)
    wrapped = make(op, kernel)
    _hide_from_dynamo(wrapped)
    _libraries[0].impl(op.name().removeprefix("aten::"), wrapped, "CUDA", with_keyset=True)
    return 1


def _hide_from_dynamo(function: Any) -> None:
    """What is called between two compiled graphs is looked at by Dynamo, but for such code."""
    try:
        from torch._C._dynamo import eval_frame

        skip = eval_frame._FrameAction.SKIP
        strategy = eval_frame._FrameExecStrategy(skip, skip)
        eval_frame.set_code_exec_strategy(function.__code__, strategy)
    except (ImportError, AttributeError):
        pass  # it costs time, no more


def _on_cpu_kernel(op: Any) -> Kernel:
    """The operator by way of the CPU, for a torch that does not hand out the device's kernel."""

    def call(_keyset: Any, *args: Any, **kwargs: Any) -> Any:
        return to_device(op(*on_host(args), **on_host(kwargs)), device_of(args))

    return call


def _valued(op: Any, kernel: Kernel) -> Kernel:
    """A kernel that does what the device's does, and then writes the CPU's result over it."""
    name = op.name()
    is_copy = name == "aten::copy_"
    places = [
        place
        for place, argument in enumerate(op._schema.arguments)
        if isinstance(argument.type, torch.TensorType)
    ]
    writes_arguments = op._schema.is_mutable

    def call(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        for place in places:
            # The dispatcher hands `x + 1` over as a tensor and a number; takes two tensors.
            if place < len(args) and type(args[place]) in _NUMBERS:
                args = (*args[:place], tensor_of(args[place], args), *args[place + 1 :])
        small = are_small(args, LIMITS) and are_small(kwargs.values(), LIMITS)
        result = kernel(keyset, *args, **kwargs)
        if (is_copy and is_plain_copy(*args)) or torch._C._cuda_isCurrentStreamCapturing():
            return result
        if small and is_small(result, LIMITS):
            try:
                host = op(*on_host(args), **on_host(kwargs))
            except _REFUSALS:
                refused_count[name] = refused_count.get(name, 0) + 1
            else:
                done_count[name] = done_count.get(name, 0) + 1
                if not writes_arguments:
                    write(result, host)
                return result
        if not writes_arguments:
            blank(result)
        return result

    return call


def _sized(op: Any, kernel: Kernel) -> Kernel:
    """A kernel that has the CPU find the result, and its size."""
    name = op.name()

    def call(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        small = are_small(args, SIZED_LIMITS) and _is_sane(name, args)
        if not small or torch._C._cuda_isCurrentStreamCapturing():
            return kernel(keyset, *args, **kwargs)
        try:
            result = to_device(op(*on_host(args), **on_host(kwargs)), device_of(args))
        except _REFUSALS:
            refused_count[name] = refused_count.get(name, 0) + 1
            return kernel(keyset, *args, **kwargs)
        done_count[name] = done_count.get(name, 0) + 1
        return result

    return call


def _emptied(_op: Any, kernel: Kernel) -> Kernel:
    """A kernel whose new tensor is zero, if it is small and of integers."""

    def call(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        result = kernel(keyset, *args, **kwargs)
        blank(result)
        return result

    return call


def _is_sane(name: str, args: Any) -> bool:
    """Whether the counts among the arguments are not what a kernel left uncounted."""
    if name not in {"aten::bincount", "aten::repeat_interleave.Tensor"} or not args[0].numel():
        return True
    counts = on_host(args[0])
    largest = counts.max() if name == "aten::bincount" else counts.clamp(min=0).sum()
    return int(largest) <= _LIMIT_RESULT_COUNT


def main() -> None:
    """Runs the program that the command line names, with small results."""
    apply()
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
