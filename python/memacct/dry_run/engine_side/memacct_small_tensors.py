"""Small tensors of the simulated GPU: which the CPU may look at, and their memory seen as its own.

For `memacct_small_results`. The simulated device's memory is memory of this process, so that a
tensor there and one of the CPU can be the same bytes.
"""

# ruff: noqa: SLF001 (a tensor is laid over memory by torch's own tools, which are private)

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Elements of the largest tensor that is looked at, of whole numbers and of others: from 32,768 on
#: the CPU's kernels use several threads, which take longer to wake than to work.
LIMITS = (1 << 16, (1 << 15) - 1)
#: The same where the result's size depends on the data.
SIZED_LIMITS = (1 << 20, 1 << 20)

_CPU = torch.device("cpu")
_KINDS = frozenset({"cpu", "cuda"})
_DTYPES = frozenset({
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint16, torch.uint32, torch.uint64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
})  # fmt: skip
_WHOLE = frozenset(dtype for dtype in _DTYPES if not dtype.is_floating_point)


def blank(result: Any) -> None:
    """Makes new tensors zero, if they are small and of whole numbers."""
    if isinstance(result, torch.Tensor):
        if result.dtype in _WHOLE and 0 < result.numel() <= LIMITS[0]:
            storage = result.untyped_storage()
            ctypes.memset(storage.data_ptr(), 0, storage.nbytes())
    elif isinstance(result, (list, tuple)):
        for each in result:
            blank(each)


def is_plain_copy(target: Any, source: Any, _non_blocking: bool = False) -> bool:
    """Whether the runtime's copy of bytes is all of it."""
    return (
        bool(target.dtype == source.dtype and target.is_contiguous() and source.is_contiguous())
        and target.size() == source.size()
    )


def are_small(values: Iterable[Any], limits: tuple[int, int]) -> bool:
    """Whether all of them are; see `is_small`."""
    return all(is_small(value, limits) for value in values)


def is_small(value: Any, limits: tuple[int, int]) -> bool:
    """Whether a value holds no tensor that is large or of a kind that the CPU does not know."""
    if isinstance(value, torch.Tensor):
        return (
            value.numel() <= limits[value.dtype.is_floating_point]
            and value.dtype in _DTYPES
            and value.device.type in _KINDS
            and value.layout == torch.strided
        )
    return not isinstance(value, (list, tuple)) or are_small(value, limits)


def tensor_of(number: float, args: Any) -> Any:
    """The tensor that stands for a number beside these arguments, and promotes them like it."""
    beside = [value for value in args if isinstance(value, torch.Tensor)]
    dtype = torch.result_type(beside[-1], number) if beside else None
    if isinstance(number, int) and dtype is not None and not dtype.is_floating_point:
        info = torch.iinfo(dtype) if dtype != torch.bool else None
        if info is not None and not info.min <= number <= info.max:
            dtype = torch.int64
    return torch.scalar_tensor(number, dtype=dtype, device=_CPU)


def on_host(value: Any) -> Any:
    """The same arguments for the CPU: tensors that are the same memory."""
    if isinstance(value, torch.Tensor):
        return _alias(value) if value.is_cuda else value
    if isinstance(value, torch.device):
        return _CPU
    if isinstance(value, dict):
        return {key: on_host(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [on_host(each) for each in value]
    return value


def _alias(tensor: Any) -> Any:
    """A CPU's tensor in the memory of the simulated device's."""
    storage = tensor.untyped_storage()
    memory = torch._C._construct_storage_from_data_pointer(
        storage.data_ptr(), _CPU, storage.nbytes()
    )
    empty = torch.empty(0, dtype=tensor.dtype, device=_CPU)
    return empty.set_(memory, tensor.storage_offset(), tensor.size(), tensor.stride())


def write(result: Any, host: Any) -> None:
    """Puts the CPU's result into the device's."""
    if isinstance(result, torch.Tensor):
        _alias(result).copy_(host)
    elif isinstance(result, (list, tuple)):
        for each, value in zip(result, host):  # noqa: B905 (one operator's, alike)
            write(each, value)


def to_device(host: Any, device: torch.device) -> Any:
    """New tensors of the device with the CPU's results."""
    if isinstance(host, torch.Tensor):
        new = torch.empty_strided(host.size(), host.stride(), dtype=host.dtype, device=device)
        write(new, host)
        return new
    return tuple(to_device(each, device) for each in host)


def device_of(args: Any) -> torch.device:
    """That of the first tensor."""
    return next(value.device for value in args if isinstance(value, torch.Tensor))
