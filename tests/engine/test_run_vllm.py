"""A real vLLM that is started by ``memacct run``: where there is room, reserved, and native."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from memacct._units import GIB
from memacct.demo.engine import engine_environ
from memacct.reservations import Reservations
from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from pathlib import Path

    from memacct.demo import Bench

pytestmark = pytest.mark.engine

ENGINE = """
import os, sys
from vllm import LLM
llm = LLM(model=sys.argv[1], skip_tokenizer_init=True, dtype="bfloat16", enforce_eager=True,
          max_model_len=1024, gpu_memory_utilization=0.5, disable_log_stats=True)
print("STARTED", flush=True)
sys.stdin.read()
os._exit(5)  # what an engine does at its end is not looked at, and takes long
"""


def test_an_engine_is_started_where_there_is_room(bench: Bench, tmp_path: Path) -> None:
    reports, held = tmp_path / "reports", tmp_path / "held"
    with SimulatedGpu(total_bytes="32GiB", count=2) as gpu, gpu.tenant("20GiB", device=0):
        second = gpu.status().devices[1].uuid
        environ = engine_environ(
            gpu.environ(runtime=True, python=bench.python),
            {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "MEMACCT_RESERVATIONS": str(held)},
            "memacct",
            bench.folder / "vllm-cache",  # of all starts: what is compiled is compiled once
        )
        log = tmp_path / "engine.log"
        command = [sys.executable, "-m", "memacct", "run", "--need", "20GiB", "--still", "0.2s"]
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [*command, "--report-dir", reports, "--", bench.python, "-c", ENGINE, bench.model],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            assert any("STARTED" in line for line in process.stdout), log.read_text()[-3000:]
            (engine,) = gpu.status().devices[1].processes
            assert 15 * GIB < engine.process_used_bytes < 17 * GIB
            # Half a second later, what it has taken is no longer promised to it.
            left = {second: 20 * GIB - engine.process_used_bytes}
            ends = time.monotonic() + 30
            while Reservations(held).promised() != left:
                assert time.monotonic() < ends, (Reservations(held).promised(), left)
                time.sleep(0.05)
            process.communicate(timeout=120)
    assert process.returncode == 5
    assert Reservations(held).promised() == {}
    (report,) = (json.loads(path.read_text()) for path in reports.glob("vllm-*-rank0.json"))
    assert (report["status"], report["clamped"]) == ("native", False)
