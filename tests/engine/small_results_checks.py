"""Checks of the operators that are carried out on small tensors of the simulated GPU.

``python small_results_checks.py FOLDER NAME`` runs one with engine_side/ at FOLDER;
test_small_results.py starts each on a machine of 32 GiB.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32]

#: Of two tensors of one dimension or more, alike, of small numbers; the second has no zeros.
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: (a + b, a + 1, a + 1.5, a.clone().add_(b), torch.add(a, b, alpha=2)),
    "sub": lambda a, b: (a - b, 1 - a, a - 1),
    "mul": lambda a, b: (a * b, 3 * a, a * 0.5),
    "div": lambda a, b: (a / b, a // b, a // 2, a % 3, a % b, torch.remainder(7, b)),
    "compare": lambda a, b: (a == b, a != 2, a < b, a <= 1, a > b, a >= b),
    "bound": lambda a, b: (a.clamp(1, 3), a.clamp(min=b), torch.maximum(a, b)),
    "where": lambda a, b: (torch.where(a > b, a, b), torch.where(a > 1, a, 0)),
    "mask": lambda a, b: (a.masked_fill(a > b, 3), a[a > b], a.masked_select(a == b)),
    "logic": lambda a, b: ((a > 1) & (b > 1), (a > 1) | (b > 2), ~(a > 1), (a > 1) ^ (b > 1)),
    "sums": lambda a, b: (a.sum(), a.sum(-1), a.cumsum(-1), b.prod(), (a > 1).sum(0)),
    "truth": lambda a, b: (a.any(), a.all(-1), (a == b).any(0), torch.equal(a, b)),
    "extremes": lambda a, _: (a.max(), a.min(-1), a.amax(0), a.argmax(), a.argmin(-1)),
    "cummax": lambda a, _: (a.cummax(-1), a.cummin(0)),
    "sort": lambda a, _: (a.sort(stable=True), a.argsort(dim=-1, stable=True), a.topk(1)),
    "nonzero": lambda a, b: (a.nonzero(), torch.nonzero(a > b, as_tuple=True)),
    "unique": lambda a, _: (
        torch.unique(a, return_inverse=True, return_counts=True),
        torch.unique(a, sorted=True, return_counts=True),
        torch.unique(a, dim=0),
        torch.unique_consecutive(a, return_counts=True),
    ),
    "isin": lambda a, b: (torch.isin(a, b), torch.isin(a, 2)),
    "search": lambda a, b: (
        torch.searchsorted(a.flatten().sort().values, b),
        torch.searchsorted(a.flatten().sort().values, 2),
        torch.bucketize(b, a.flatten().sort().values, right=True),
    ),
    "index": lambda a, _: (a[[0, -1]], a[..., 0], a.index_select(0, indices(a)), a.flip(0)),
    "put": lambda a, b: (
        a.clone().index_put_((indices(a),), b[0]),
        a.index_fill(0, indices(a), 1),
        a.clone().index_copy_(0, indices(a), b[:1]),
        a.index_add(0, indices(a), b[:1]),
    ),
    "gather": lambda a, b: (
        a.gather(-1, a.argsort(dim=-1, stable=True)),
        a.scatter(-1, b.argsort(dim=-1, stable=True), b),
        a.scatter_add(-1, torch.zeros_like(a, dtype=torch.int64), b),
    ),
    "shape": lambda a, b: (torch.cat([a, b]), torch.stack([a, b], -1), a.roll(1), a.tile(2)),
    "strides": lambda a, _: (a.transpose(0, -1).contiguous(), a[..., ::2] + 1, a.mT.clone()),
    "cast": lambda a, _: (a.int(), a.float(), a.bool(), a.bool().int(), a.to(torch.int8)),
    "fill": lambda a, _: (a.clone().fill_(3), written(a, 2), a.mT.clone().zero_()),
    "numbers": lambda a, _: (a.max().item(), a.sum().item(), a.tolist()),
    "round": lambda a, _: ((a / 3).ceil(), (a / 3).floor().int(), (a / 3).round(), (-a).abs()),
    "power": lambda a, _: (a.pow(2), torch.pow(2, a % 4), torch.tril(a), torch.triu(a)),
}

#: Of whole numbers alone.
OPERATORS_OF_WHOLE: dict[str, Callable[[Any, Any], Any]] = {
    "bits": lambda a, b: (a & b, a | b, a ^ b, ~a, a << 1, a >> 1),
    "bincount": lambda a, b: (a.flatten().abs().bincount(), b.flatten().bincount(minlength=9)),
    "repeat": lambda a, b: (
        torch.repeat_interleave(b.flatten().long()),
        a.flatten().repeat_interleave(b.flatten().long()),
    ),
    "one_hot": lambda _, b: torch.nn.functional.one_hot(b.long()),
    "arange": lambda a, b: (
        torch.arange(7, device=a.device, dtype=a.dtype),
        torch.arange(1, 9, 3, device=a.device),
        torch.tril_indices(3, 4, device=a.device),
        torch.eye(3, dtype=b.dtype, device=a.device),
    ),
}


def indices(tensor: torch.Tensor) -> torch.Tensor:
    """Of one row, on the tensor's device."""
    return torch.tensor([tensor.shape[0] - 1], device=tensor.device)


def written(tensor: torch.Tensor, value: int) -> torch.Tensor:
    """A copy with a value in every other column."""
    new = tensor.clone()
    new[..., ::2] = value
    return new


def flat(value: Any) -> list[Any]:
    """The tensors and numbers in it."""
    if isinstance(value, (list, tuple)):
        return [each for one in value for each in flat(one)]
    return [value.cpu() if isinstance(value, torch.Tensor) else value]


def alike(got: Any, wanted: Any) -> bool:
    if not isinstance(wanted, torch.Tensor):
        return bool(got == wanted)
    return got.dtype == wanted.dtype and got.shape == wanted.shape and got.equal(wanted)


def differing(operators: dict[str, Callable[[Any, Any], Any]], a: Any, b: Any) -> list[str]:
    """Which operators answer otherwise on the device than on the CPU."""
    wrong = []
    for name, operator in operators.items():
        wanted, got = flat(operator(a, b)), flat(operator(a.cuda(), b.cuda()))
        same = [alike(*each) for each in zip(got, wanted, strict=True)]
        if not all(same):
            wrong.append(f"{name}, result {same.index(False)}, of {a.dtype} {list(a.shape)}")
    return wrong


def values() -> None:
    """Each operator against the CPU, of random tensors; the first pass has one element."""
    torch.manual_seed(0)
    shapes = [(1, 1), (5, 4), (3, 1, 6), (40, 30)]
    wrong = []
    for dtype in [*WHOLE, *FLOATS]:
        for shape in shapes:
            a = torch.randint(0, 5, shape).to(dtype)
            b = torch.randint(1, 5, shape).to(dtype)
            table = OPERATORS if dtype in FLOATS else OPERATORS | OPERATORS_OF_WHOLE
            wrong += differing(table, a, b)
    assert not wrong, "\n".join(wrong)


def results() -> None:
    """All of it in one process; in inference mode too, as engines run."""
    values()
    with torch.inference_mode():
        values()
    default_device()
    new_tensors()


def default_device() -> None:
    """The same while new tensors are the device's, as they are where models are built."""
    with torch.device("cuda"):
        x = torch.tensor([3, 1, 3])
        assert x.unique().tolist() == [1, 3]
        assert (torch.arange(3) + x).tolist() == [3, 2, 5]


def new_tensors() -> None:
    """What no operator wrote is zero, also in a block that somebody else has written to."""
    torch.full((1000,), 7, dtype=torch.int32, device="cuda")
    assert torch.empty(1000, dtype=torch.int32, device="cuda").tolist() == [0] * 1000
    torch.full((10, 100), 7, dtype=torch.int32, device="cuda")
    blank = torch.empty_strided((10, 100), (1, 10), dtype=torch.int32, device="cuda")
    assert blank.tolist() == [[0] * 100] * 10
    torch.full((3,), 7, device="cuda")
    assert torch.ones(100_000, device="cuda").topk(3).indices.tolist() == [0] * 3


def left_alone() -> None:
    """Large tensors and what is captured are not computed; wrong indices are no error."""
    import memacct_small_results as small

    large = torch.ones(small.LIMITS[0] + 1, dtype=torch.int32, device="cuda")
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    few = torch.ones(8, dtype=torch.int32, device="cuda")
    few + few
    done = dict(small.done_count)
    large + large
    with torch.cuda.graph(graph, stream=stream):
        few + few
    assert small.done_count == done
    assert small.refused_count == {}
    row = torch.tensor([9], device="cuda")
    assert few.reshape(4, 2)[row].shape == (1, 2)
    assert small.refused_count == {"aten::index.Tensor": 1}


def compiled() -> None:
    """Dynamo compiles as before, and does not look into what is called between graphs."""
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def count(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        return y.unique() + 2

    x = torch.tensor([1, 1, 4], device="cuda")
    assert torch.compile(count, backend=backend)(x).tolist() == [4, 7]
    assert 1 <= len(graphs) <= 3


def main() -> None:
    folder, name = sys.argv[1:]
    sys.path.insert(0, folder)
    import memacct_small_results as small

    if name.startswith("without_"):
        name = name.removeprefix("without_")
    else:
        assert small.apply() > 200
        assert small.apply() == 0
    globals()[name]()


if __name__ == "__main__":
    main()
