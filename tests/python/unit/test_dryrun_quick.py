"""The program that makes an engine's start quick, without an engine: what it patches, and when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memacct.dry_run.engine_process import ENGINE_SIDE

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import json, os, sys
sys.path[:0] = {paths!r}
import memacct_quick
memacct_quick.build_helper = lambda cache: None  # there is no Triton here
names = memacct_quick.apply()
from vllm.model_executor.models import registry
import triton.backends.nvidia.compiler, torch._guards
caches = {{name: value for name, value in os.environ.items() if name.endswith(("_DIR", "_ROOT"))}}
print(json.dumps([names, registry.look(), caches]))
"""
REGISTRY = """
def _run_in_subprocess(function):
    return "elsewhere"

def look():
    return _run_in_subprocess(lambda: "here")
"""


def run(folder: Path, switch: str) -> list[Any]:
    """Applies it in a process with packages of these names that are almost empty."""
    for name, text in {
        "vllm/model_executor/models/registry.py": REGISTRY,
        "triton/backends/nvidia/compiler.py": "class CUDABackend:\n    make_ttir = None\n",
        "torch/_guards.py": "",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environ = {
        **os.environ,
        "MEMACCT_DRYRUN_QUICK": switch,
        "MEMACCT_DRYRUN_FOLDER": str(folder / "run"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TRITON_CACHE_DIR": str(folder / "users-own"),
        "VLLM_CACHE_ROOT": str(folder / "users-own"),
    }
    program = PROGRAM.format(paths=[str(folder), str(ENGINE_SIDE)])
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    told: list[Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize(
    ("switch", "where"), [("1", "here"), ("inspect", "here"), ("0", "elsewhere")]
)
def test_a_module_is_patched_when_it_is_imported(tmp_path: Path, switch: str, where: str) -> None:
    names, looked, _ = run(tmp_path, switch)
    assert looked == where
    assert ("inspect" in names) == (where == "here")


@pytest.mark.parametrize(
    ("switch", "kernels"), [("1", "cache/memacct/dryrun-kernels-1"), ("0", "run/cache/triton")]
)
def test_what_compilers_keep_is_never_where_real_starts_look(
    tmp_path: Path, switch: str, kernels: str
) -> None:
    caches = run(tmp_path, switch)[2]
    assert caches["TRITON_CACHE_DIR"] == str(tmp_path / kernels)
    assert caches["VLLM_CACHE_ROOT"] == str(tmp_path / "run/cache/vllm")
    assert caches["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "run/cache/inductor")
