"""Answers cuDNN's convolutions: the output is allocated, nothing is computed.

cuDNN is not simulated: its library talks to the driver by private functions. PyTorch chooses it
all the same, for Whisper's encoder and some vision towers, and what PyTorch allocates for it is
the output; a workspace of cuDNN's own is not seen.
"""

from __future__ import annotations

from typing import Any

_KEPT: list[Any] = []  # a library's registrations end with it


def apply() -> bool:
    """Replaces PyTorch's calls of cuDNN's convolutions; False if it knows none of them.

    Imports torch; to be called once in each process, before the model is made.
    """
    if _KEPT:
        return True
    import torch

    library = torch.library.Library("aten", "IMPL")
    functions = {
        "cudnn_convolution": _convolution,
        "cudnn_convolution_transpose": _transposed,
        "cudnn_convolution_relu": _convolution_relu,
        "cudnn_convolution_add_relu": _convolution_add_relu,
    }
    known = [name for name in functions if hasattr(torch.ops.aten, name)]
    for name in known:
        library.impl(name, functions[name], "CUDA")
    _KEPT.append(library)
    return bool(known)


def _empty(like: Any, shape: list[int]) -> Any:
    import torch

    ranks = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = ranks.get(like.dim())
    keeps = last is not None and like.is_contiguous(memory_format=last)
    keeps = keeps and not like.is_contiguous()
    layout = last if keeps else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def _convolution(
    given: Any, weight: Any, padding: Any, stride: Any, dilation: Any, *_: Any, **__: Any
) -> Any:
    sizes = [
        (size + 2 * pad - dilate * (kernel - 1) - 1) // step + 1
        for size, kernel, pad, step, dilate in zip(
            given.shape[2:], weight.shape[2:], padding, stride, dilation, strict=True
        )
    ]
    return _empty(given, [given.shape[0], weight.shape[0], *sizes])


def _transposed(  # noqa: PLR0917 (PyTorch's order)
    given: Any, weight: Any, padding: Any, more: Any, stride: Any, dilation: Any,
    groups: int, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    sizes = [
        (size - 1) * step - 2 * pad + dilate * (kernel - 1) + extra + 1
        for size, kernel, pad, extra, step, dilate in zip(
            given.shape[2:], weight.shape[2:], padding, more, stride, dilation, strict=True
        )
    ]
    return _empty(given, [given.shape[0], weight.shape[1] * groups, *sizes])


def _convolution_relu(  # noqa: PLR0917 (PyTorch's order)
    given: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    del bias, groups
    return _convolution(given, weight, padding, stride, dilation)


def _convolution_add_relu(  # noqa: PLR0917 (PyTorch's order)
    given: Any, weight: Any, z: Any, alpha: Any, bias: Any, stride: Any, padding: Any,
    dilation: Any, groups: int,
) -> Any:  # fmt: skip
    del z, alpha, bias, groups
    return _convolution(given, weight, padding, stride, dilation)
