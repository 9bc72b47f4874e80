"""``memacct plan`` on the GPU of this machine: what is free now, and whose the rest is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from public_models import PUBLIC, write_config

from memacct._units import GIB
from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_config(tmp_path / "llama", PUBLIC["Llama-3.1-8B"].config)


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="40GiB") as found:
        yield found


def plan(
    environ: Mapping[str, str], folder: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "memacct", "plan", str(folder), *options],
        check=False,
        text=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, **environ, "NO_COLOR": "1"},
    )


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_others_hold_is_not_there_for_the_engine(llama: Path, gpu: SimulatedGpu) -> None:
    environ = gpu.environ(runtime=False)
    options = ("--max-model-len", "8192", "--utilization", "0.9")
    alone = plan(environ, llama, *options, "--json")
    assert alone.returncode == 0, alone.stderr
    assert told(alone)["gpu"]["free_bytes"] == told(alone)["gpu"]["total_bytes"]
    with gpu.tenant("12GiB") as tenant:
        done = plan(environ, llama, *options, "--json")
        assert done.returncode == 1, done.stderr
        found = told(done)
        (holder,) = found["gpu"]["holders"]
        assert holder["pid"] == tenant.pid
        assert holder["process_used_bytes"] + found["gpu"]["free_bytes"] == 40 * GIB
        # What the engine asks for is a part of the whole, whatever is free of it.
        assert found["requested_bytes"] == 36 * GIB == told(alone)["requested_bytes"]
        text = plan(environ, llama, *options).stdout
        assert f"pid {tenant.pid} holds 12." in text
        assert "the engine asks for 36.00 GiB and 27." in text
        assert f"more on the GPU (held by pid {tenant.pid})" in text
        option = found["changes"][1]["option"]
        assert option.startswith("--gpu-memory-utilization 0.6")
        again = (*options[:2], "--utilization", option.split()[1])
        assert plan(environ, llama, *again).returncode == 0


def test_a_gpu_that_is_not_there_is_named(llama: Path, gpu: SimulatedGpu) -> None:
    done = plan(gpu.environ(runtime=False), llama, "--device", "3")
    assert done.returncode == 2
    assert done.stderr == "memacct: --device 3: this machine's GPUs are 0\n"


def test_without_a_gpu_it_says_what_the_model_needs(llama: Path) -> None:
    done = plan({"MEMACCT_NVML_LIBRARY": "/nowhere"}, llama, "--json")
    if told(done)["gpu"] is not None:
        pytest.skip("this machine has a GPU")
    assert done.returncode == 0, done.stderr
    assert told(done)["fits"] is None
    assert told(done)["kv_cache"]["needed_bytes"] == (131_072 // 16 + 1) * 16 * 131_072


def test_it_imports_neither_torch_nor_an_engine(llama: Path) -> None:
    program = (
        "import sys; from memacct.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "found = {'torch', 'vllm', 'numpy', 'rich.live'} & set(sys.modules); "
        "print(sorted(found), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "plan", str(llama), "--gpu", "h100"]
    done = subprocess.run(command, check=False, text=True, capture_output=True, timeout=60)
    assert done.stderr == "[]\n", done.stdout
