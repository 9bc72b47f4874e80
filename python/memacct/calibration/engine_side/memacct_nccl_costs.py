"""One rank of a communicator of NCCL over all visible GPUs.

python memacct_nccl_costs.py RANK RANKS PORT
"""

from __future__ import annotations

import sys
from datetime import timedelta

from memacct_mark import mark  # type: ignore[import-not-found] # in this folder

_BYTES = 64 << 20  # large enough for the protocol of large messages


def main() -> None:
    """Marks: "context", "made", "connected"."""
    import torch
    import torch.distributed as dist

    rank, ranks, port = (int(text) for text in sys.argv[1:4])
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    given = torch.empty(_BYTES, dtype=torch.uint8, device=device)
    gathered = torch.empty(_BYTES * ranks, dtype=torch.uint8, device=device)
    mark("context")
    dist.init_process_group(
        "nccl",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=ranks,
        device_id=device,  # makes the communicator now
        timeout=timedelta(seconds=120),
    )
    mark("made")
    dist.all_reduce(given)
    dist.all_gather_into_tensor(gathered, given)
    mark("connected")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
