"""A Python with torch: our mappings are what psutil and pmap say.

MEMACCT_ENGINE_PYTHON names its Python; default ``.venv-gpu/bin/python`` of the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mapping_oracles import assert_all_equal, still_child

from memacct import _core

pytestmark = pytest.mark.engine

DEFAULT_PYTHON = Path(__file__).parents[2] / ".venv-gpu" / "bin" / "python"
PYTHON = Path(os.environ.get("MEMACCT_ENGINE_PYTHON", DEFAULT_PYTHON))

WEIGHTS = """
import torch
weights = torch.ones(64 << 20, dtype=torch.uint8)
torch.save(weights, folder + "/weights.pt")
mapped = torch.load(folder + "/weights.pt", mmap=True)
assert int(mapped[::4096].sum()) == len(weights) // 4096
"""


def test_a_python_with_torch_and_mapped_weights() -> None:
    if not PYTHON.exists():
        pytest.skip(f"no Python with torch at {PYTHON}")
    with still_child(WEIGHTS, python=PYTHON) as pid:
        assert_all_equal(pid)
        mappings = _core.read_mappings(pid)
        libraries = [path for path in mappings.by_file() if "libtorch" in path]
        assert libraries
        weights = [f for path, f in mappings.by_file().items() if path.endswith("weights.pt")]
        assert [w.rss_bytes is not None and w.rss_bytes >= 64 << 20 for w in weights] == [True]
