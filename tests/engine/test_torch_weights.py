"""Weights as vLLM's loader reads them (torch, safetensors): page cache until they are copied."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memacct._units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.engine

SCRIPT = """
import json, sys
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from memacct import snapshot

path, size = sys.argv[1], int(sys.argv[2])
if len(sys.argv) == 4:  # in a process of its own: what writes a file has its pages dirty
    save_file({"weight": torch.ones(size, dtype=torch.uint8)}, path)
    open(path).close()
    import os
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    sys.exit()

told = {}
def tell(name):
    reading = snapshot(host="mappings", devices=None)
    totals = reading.mappings.by_file().get(path)
    told[name] = {
        "held": reading.host.held_bytes,
        "reclaimable": reading.host.reclaimable_bytes,
        "file": None if totals is None else totals.to_dict(),
        "kinds": sorted({m.kind for m in reading.mappings if m.path == path}),
    }

torch.ones(1).sum(), torch.ones(1).clone()  # what torch needs once
with safe_open(path, framework="pt") as file:
    tell("opened")
    tensor = file.get_tensor("weight")
    assert int(tensor.sum()) == size
    tell("read")
    copy = tensor.clone()
    tell("copied")
    del tensor
tell("closed")
print(json.dumps(told))
"""
SIZE = 64 * MIB
SLACK = 4 * MIB


@pytest.fixture
def path() -> Iterator[Path]:
    # In the working directory: /tmp may be a tmpfs, whose pages are shmem.
    with tempfile.TemporaryDirectory(dir=".") as folder:
        yield Path(folder).resolve() / "model.safetensors"


def test_torch_reads_safetensors_as_page_cache_and_holds_the_copy(
    gpu_python: Path, path: Path
) -> None:
    command = [gpu_python, "-W", "ignore", "-c", SCRIPT, path, str(SIZE)]
    subprocess.run([*command, "write"], check=True, timeout=120)
    done = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    told = json.loads(done.stdout)
    if told["opened"]["kinds"] == ["shmem"]:
        pytest.skip("the working directory is on a tmpfs")

    assert told["read"]["file"]["vms_bytes"] >= SIZE
    assert told["read"]["file"]["held_bytes"] == 0
    read = told["read"]["reclaimable"] - told["opened"]["reclaimable"]
    assert read == pytest.approx(SIZE, abs=SLACK)
    assert told["read"]["held"] - told["opened"]["held"] == pytest.approx(0, abs=SLACK)

    assert told["copied"]["held"] - told["read"]["held"] == pytest.approx(SIZE, abs=SLACK)
    assert told["closed"]["file"] is None
    assert told["closed"]["held"] - told["copied"]["held"] == pytest.approx(0, abs=SLACK)
    assert told["copied"]["reclaimable"] - told["closed"]["reclaimable"] == pytest.approx(
        SIZE, abs=SLACK
    )
