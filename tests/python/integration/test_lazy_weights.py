"""Weights read lazily from a real safetensors file: page cache first, then, copied, held."""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

import memacct

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct import Snapshot
    from memacct._core import MappingTotals

MIB = 1 << 20
LAYERS = 4
LAYER_BYTES = 8 * MIB
# What the interpreter itself takes meanwhile.
SLACK_BYTES = MIB


@pytest.fixture
def checkpoint() -> Iterator[Path]:
    # In the working directory: /tmp may be a tmpfs, whose pages are shmem.
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder).resolve() / "model.safetensors"
        layers = {
            f"layer.{n}.weight": np.full(LAYER_BYTES // 4, n, np.float32) for n in range(LAYERS)
        }
        save_file(layers, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        yield path


def views(block: mmap.mmap) -> dict[str, np.ndarray]:
    """The tensors as views of the mapped file: no byte is read before somebody looks at it."""
    (header_bytes,) = struct.unpack_from("<Q", block)
    header = json.loads(block[8 : 8 + header_bytes])
    start = 8 + header_bytes
    return {
        name: np.frombuffer(
            block,
            np.float32,
            count=(entry["data_offsets"][1] - entry["data_offsets"][0]) // 4,
            offset=start + entry["data_offsets"][0],
        )
        for name, entry in header.items()
    }


def read(path: Path) -> tuple[Snapshot, MappingTotals]:
    snapshot = memacct.snapshot(host="mappings", devices=None)
    assert snapshot.mappings is not None
    totals = snapshot.mappings.by_file()[str(path)]
    if "shmem" in {m.kind for m in snapshot.mappings if m.path == str(path)}:
        pytest.skip("the working directory is on a tmpfs")
    return snapshot, totals


def test_they_are_reclaimable_when_read_and_held_when_copied(checkpoint: Path) -> None:
    with checkpoint.open("rb") as file:
        block = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    tensors = views(block)
    mapped, at_first = read(checkpoint)
    assert at_first.vms_bytes is not None
    assert at_first.vms_bytes >= LAYERS * LAYER_BYTES
    assert at_first.rss_bytes is not None
    assert at_first.rss_bytes < LAYER_BYTES  # the header, and what the kernel read ahead

    for number, tensor in enumerate(tensors.values()):
        assert tensor[0] == tensor.max() == tensor.min() == number
    lazily, resident = read(checkpoint)
    assert resident.rss_bytes == resident.reclaimable_bytes == resident.vms_bytes
    assert resident.held_bytes == resident.dirty_bytes == 0
    delta = (lazily - mapped).host
    assert delta.reclaimable_bytes == pytest.approx(LAYERS * LAYER_BYTES, abs=SLACK_BYTES)
    assert delta.held_bytes == pytest.approx(0, abs=SLACK_BYTES)

    copies = {name: tensor.copy() for name, tensor in tensors.items()}
    copied, _ = read(checkpoint)
    delta = (copied - lazily).host
    assert delta.held_bytes == pytest.approx(LAYERS * LAYER_BYTES, abs=SLACK_BYTES)
    assert delta.reclaimable_bytes == pytest.approx(0, abs=SLACK_BYTES)

    del tensors, tensor
    block.close()
    without = memacct.snapshot(host="mappings", devices=None)
    change = without - copied
    assert change.mappings is not None
    files = {each.name: each for each in change.mappings.files}
    assert files[str(checkpoint)].reclaimable_bytes == -(resident.vms_bytes or 0)
    assert change.host.held_bytes == pytest.approx(0, abs=SLACK_BYTES)
    assert len(copies) == LAYERS


def test_the_table_shows_a_checkpoint_however_little_of_it_is_resident(checkpoint: Path) -> None:
    with (
        checkpoint.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as block,
    ):
        assert len(block) > LAYERS * LAYER_BYTES
        snapshot, totals = read(checkpoint)
    lines = str(snapshot.mappings).splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("checkpoint"))
    assert "mapped" in lines[place]
    assert "reclaimable" in lines[place]
    assert "model.safetensors" in lines[place + 1]
    assert f"{(totals.vms_bytes or 0) / MIB:.2f} MiB" in lines[place + 1]


def test_a_child_that_shares_them_counts_no_page_twice(checkpoint: Path) -> None:
    with checkpoint.open("rb") as file:
        block = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    read(checkpoint)  # skips on a tmpfs
    size = len(block)
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # as a worker does: it maps nothing new, and reads what it inherited
        os.close(go_on[1])  # so that it sees the end of its parent
        os.read(go_on[0], 1)
        sum(block[offset] for offset in range(0, size, mmap.PAGESIZE))
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        os._exit(0)
    try:
        before = memacct.snapshot_tree()
        sum(block[offset] for offset in range(0, size, mmap.PAGESIZE))
        alone = memacct.snapshot_tree()
        os.write(go_on[1], b"x")
        os.read(ready[0], 1)
        shared = memacct.snapshot_tree()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for descriptor in (*ready, *go_on):
            os.close(descriptor)
    assert {os.getpid(), child} <= {process.pid for process in shared.processes}
    assert shared.complete

    def grown(tree: memacct.TreeSnapshot, term: str) -> int:
        return int(getattr(tree, term)) - int(getattr(before, term))

    assert grown(alone, "rss_bytes") == pytest.approx(size, abs=SLACK_BYTES)
    assert grown(alone, "pss_file_bytes") == pytest.approx(size, abs=SLACK_BYTES)
    assert grown(shared, "rss_bytes") == pytest.approx(2 * size, abs=SLACK_BYTES)
    assert grown(shared, "pss_file_bytes") == pytest.approx(size, abs=SLACK_BYTES)
    block.close()
