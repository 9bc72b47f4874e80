"""Own means the engine, in a real one: what its peers and daemons take is charged to it."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memacct._units import GIB, MIB
from memacct.demo import TOLERANCE_BYTES
from memacct.demo.engine import ENGINE_SIDE
from memacct.demo.scenarios import ALLOCATES, EAGER

if TYPE_CHECKING:
    from conftest import Starts

    from memacct.demo import EngineResult

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
CONTEXT_BYTES = 400 * MIB  # on the simulated GPU
DAEMON_BYTES = 682 * MIB  # with its context

ALONE = replace(
    ALLOCATES, key="tp2", engines=(replace(EAGER, tensor_parallel_size=2),), device_count=2
)

# A peer and a daemon of the engine take memory of the first GPU after the baseline, and so does
# a neighbour. Processes are spawned, as `vllm serve` does.
HELPED = replace(
    ALONE,
    key="family",
    title="tensor parallel 2 whose second worker helps itself on the first GPU",
    engines=(
        replace(
            EAGER,
            tensor_parallel_size=2,
            arguments={"worker_extension_cls": "family_stage.FamilyExtension"},
            environ={
                "PYTHONPATH": os.pathsep.join(
                    map(str, (ENGINE_SIDE, HERE, HERE.parent / "python" / "helpers"))
                ),
                "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
                "FAMILY_DAEMON_BYTES": str(DAEMON_BYTES - CONTEXT_BYTES),
            },
        ),
    ),
)


@pytest.fixture(scope="module")
def helped(starts: Starts) -> EngineResult:
    result = starts.native(HELPED)
    assert result.served, result.error
    return result


def report_of(result: EngineResult, rank: int) -> dict[str, Any]:
    (path,) = result.log_path.parent.glob(f"memacct/vllm-*-rank{rank}.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_engine_pays_for_its_own_and_for_no_neighbour(
    starts: Starts, helped: EngineResult
) -> None:
    alone = [worker["available_bytes"] for worker in starts.isolated(ALONE).workers]
    found = [worker["available_bytes"] for worker in helped.workers]
    assert abs(alone[0] - found[0] - CONTEXT_BYTES - DAEMON_BYTES) <= TOLERANCE_BYTES
    assert abs(alone[1] - found[1]) <= TOLERANCE_BYTES


def test_the_report_names_who_holds_what(helped: EngineResult) -> None:
    report = report_of(helped, 0)
    taken = {row["role"]: row["since_start_bytes"] for row in report["engine"]}
    assert taken["daemon of worker rank 1"] == DAEMON_BYTES
    others = [row for row in report["engine"] if row["owner"] == "sibling"]
    assert [row["rank"] for row in others] == [None, 1]
    assert others[1]["since_start_bytes"] == CONTEXT_BYTES
    assert report["consumption"]["source"] == "own+tree+siblings"
    assert report["consumption"]["siblings_bytes"] == CONTEXT_BYTES + DAEMON_BYTES
    assert report["siblings_reason"] == ""
    assert [change["after_bytes"] - change["before_bytes"] for change in report["foreign"]] == [
        3 * GIB
    ]
    rows = {row["name"]: row for row in report["equation"]}
    assert rows["siblings"]["since_start_bytes"] == CONTEXT_BYTES + DAEMON_BYTES
    assert sum(row["now_bytes"] for row in report["equation"]) == report["total_bytes"]
    assert "the engine's daemon of worker rank 1 (pid" in helped.log()


def test_the_other_gpus_worker_has_nobody_beside_it(helped: EngineResult) -> None:
    report = report_of(helped, 1)
    assert report["consumption"]["source"] == "own+tree"
    assert [row["owner"] for row in report["engine"]] == ["own"]


def test_every_process_of_the_engine_has_registered(helped: EngineResult) -> None:
    registered = json.loads((helped.log_path.parent / "registered.json").read_text())
    assert set(registered) == {"the user's process", "EngineCore", "worker rank 0", "worker rank 1"}
    workers = {f"worker rank {worker['rank']}": worker["pid"] for worker in helped.workers}
    assert workers.items() <= registered.items()


WEIGHT_CACHE = """
import socket, sys
from memacct.integrations.vllm import _family, _family_hooks
_family.family.join(_family.WORKER, rank=0)
_family_hooks.after_import(_family_hooks._WEIGHT_CACHE_CLIENT, _family_hooks._hook_weight_cache)
from vllm.model_executor.model_loader.weight_cache.ipc_loader import IpcModelLoader
loader = object.__new__(IpcModelLoader)
loader.socket_path, loader.socket_dir, loader.is_draft = sys.argv[1], None, False
loader._connect(5.0).close()
print([[entry.role, entry.pid] for entry in _family.family.entries()])
"""


def test_the_weight_caches_daemon_is_known_by_its_socket(gpu_python: Path, tmp_path: Path) -> None:
    # Nothing of the daemon but its socket, and nothing of the engine but its client.
    private = tmp_path / "sockets"
    private.mkdir(mode=0o700)
    path = private / "daemon.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        done = subprocess.run(
            [str(gpu_python), "-c", WEIGHT_CACHE, str(path)],
            env={
                **os.environ,
                "MEMACCT_ENGINE_ID": "engine",
                "MEMACCT_ENGINE_DIR": str(tmp_path / "engines"),
                "VLLM_PLUGINS": "none",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    entries = ast.literal_eval(done.stdout.splitlines()[-1])
    assert ["weight-cache daemon", os.getpid()] in entries
