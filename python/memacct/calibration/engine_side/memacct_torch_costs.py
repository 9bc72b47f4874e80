"""A PyTorch program that makes a context, a cuBLAS handle, and graphs of known sizes.

python memacct_torch_costs.py GRAPHS NODES [NODES ...]
"""

from __future__ import annotations

import sys

from memacct_mark import mark, versions  # type: ignore[import-not-found] # in this folder


def main() -> None:
    """Marks: "context", "cublas", then "graphs N" after each number of nodes."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("no GPU")
    torch.cuda.set_device(0)
    torch.cuda.mem_get_info()
    mark("context", **versions())
    torch.cuda.current_blas_handle()
    mark("cublas")
    each, sizes = int(sys.argv[1]), [int(text) for text in sys.argv[2:]]
    counter = torch.zeros(1, device="cuda")
    kept = [_graph(counter, 1)]  # the first one loads what all need
    mark("graphs 0")
    for nodes in sizes:
        kept += [_graph(counter, nodes) for _ in range(each)]
        mark(f"graphs {nodes}")


def _graph(counter: object, nodes: int) -> object:
    """A captured graph of so many nodes, launched once: some drivers upload it then."""
    import torch

    counter.add_(1)  # type: ignore[attr-defined]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(nodes):
            counter.add_(1)  # type: ignore[attr-defined]
    graph.replay()
    return graph


if __name__ == "__main__":
    main()
