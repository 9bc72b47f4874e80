"""Marks become figures: differences, a line through graphs of known sizes, the spread of runs."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memacct._errors import MemacctError, SourceUnavailableError
from memacct._units import MIB
from memacct.calibration import calibrate
from memacct.calibration.figures import (
    engine_figures,
    line_through,
    nccl_figures,
    spread,
    torch_figures,
)
from memacct.calibration.standing import Mark, StandingProgram
from memacct.calibration.words import words
from memacct.dry_run.calibration_file import Calibration
from memacct.sim import SimulatedGpu

SIZES = (1, 64, 256)


def mark(name: str, held_bytes: int) -> Mark:
    return Mark(name=name, held_bytes=held_bytes, by_process=True)


def torch_run(context: int, handle: int, graph: int, node: int, count: int = 32) -> list[Mark]:
    held = context + handle
    marks = [mark("context", context), mark("cublas", held), mark("graphs 0", held + 5 * MIB)]
    held += 5 * MIB
    for size in SIZES:
        held += count * (graph + node * size)
        marks.append(mark(f"graphs {size}", held))
    return marks


@given(graph=st.integers(0, 2**21), node=st.integers(0, 2**17))
def test_graphs_of_known_sizes_tell_graph_and_node_to_the_byte(graph: int, node: int) -> None:
    found = torch_figures([torch_run(400 * MIB, 3 * MIB, graph, node)], 32)
    assert {name: amount.bytes for name, amount in found.items()} == {
        "context": 400 * MIB,
        "cublas": 3 * MIB,
        "graph": graph,
        "graph_node": node,
    }


def test_the_value_is_the_median_and_the_range_the_spread() -> None:
    runs = [torch_run(context * MIB, MIB, 0, 10240) for context in (430, 400, 410)]
    context = torch_figures(runs, 32)["context"]
    assert (context.low_bytes, context.bytes, context.high_bytes) == (
        400 * MIB,
        410 * MIB,
        430 * MIB,
    )


def test_pages_of_the_driver_move_a_node_by_no_more_than_a_page_over_all_graphs() -> None:
    """The driver takes pages of 2 MiB, of which every sum is a multiple."""
    page = 2 * MIB
    rough = [mark(one.name, -(-one.held_bytes // page) * page) for one in torch_run(0, 0, 0, 10240)]
    found = torch_figures([rough], 32)["graph_node"].bytes
    assert abs(found - 10240) < page / (32 * (SIZES[-1] - SIZES[0])) * 2


def test_a_cost_is_never_negative() -> None:
    fixed, slope = line_through((1, 2, 3), [Fraction(9), Fraction(6), Fraction(3)])
    assert (int(fixed), int(slope)) == (6, 0)
    assert spread([-5, 7, 9], "so").low_bytes == 0


def test_nccl_is_told_by_rank() -> None:
    ranks = [
        [mark("context", 10), mark("made", 10 + made), mark("connected", 10 + made + first)]
        for made, first in ((100, 7), (102, 9))
    ]
    found = nccl_figures(ranks)
    assert (found["nccl"].bytes, found["nccl"].high_bytes) == (101, 102)
    assert (found["nccl_first"].low_bytes, found["nccl_first"].high_bytes) == (7, 9)


def test_kernels_are_what_lies_between_an_engines_two_readings() -> None:
    marks = [mark("context", 100), mark("initialised", 150), mark("profiled", 1150)]
    kernels = engine_figures(marks)["kernels"]
    assert (kernels.low_bytes, kernels.bytes, kernels.high_bytes) == (900, 1000, 1100)


def test_words_name_every_figure_and_the_file() -> None:
    figures = torch_figures([torch_run(400 * MIB, 3 * MIB, 0, 10240)], 32)
    found = Calibration(
        card="NVIDIA L4",
        driver="580.1",
        torch="2.14",
        cuda="13.0",
        vllm=None,
        when="now",
        gpus=1,
        wsl=False,
        figures=figures,
        notes=("a note",),
    )
    told = words(found, Path("/x/calibration.json"))
    assert "NVIDIA L4" in told
    assert "400.00 MiB" in told
    assert "10.0 KiB" in told
    assert "note: a note" in told
    assert told.endswith("/x/calibration.json")


def test_without_a_gpu_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(SourceUnavailableError, match="no GPU here"):
        calibrate(out=tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()


PROGRAM = """
import json, os, sys
told, go = map(int, os.environ["MEMACCT_MARK_FDS"].split(","))
def mark(name):
    values = {"mark": name, "pid": 1, "device": "x", "reserved_bytes": 3, "free_bytes": 10,
              "total_bytes": 110}
    os.write(told, (json.dumps(values) + "\\n").encode())
    os.read(go, 1) or sys.exit(0)
"""


def program(tmp_path: Path, script: str, limit_s: float = 20) -> StandingProgram:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM + script)
    return StandingProgram(
        ["/usr/bin/env", "python3", str(file)],
        environ={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        log=tmp_path / "log",
        limit_s=limit_s,
    )


def test_a_program_stands_still_until_it_may_go_on(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    script = f"mark('one'); open({str(reached)!r}, 'w').close(); mark('two')"
    with program(tmp_path, script) as standing:
        one = standing.next("one")
        assert not reached.exists()
        standing.go()
        standing.next("two")
        assert reached.exists()
    # The driver tells nothing of it: the device's whole use, less PyTorch's own.
    assert (one.held_bytes, one.by_process) == (97, False)


@pytest.mark.parametrize(
    ("script", "limit_s", "says"),
    [
        ("print('no memory left'); sys.exit(3)", 20, "no memory left"),
        ("mark('elsewhere')", 20, "'elsewhere'"),
        ("import time; time.sleep(30)", 0.2, "within 0.2 s"),
    ],
)
def test_a_program_that_does_not_come_is_told(
    tmp_path: Path, script: str, limit_s: float, says: str
) -> None:
    with pytest.raises(MemacctError, match=says), program(tmp_path, script, limit_s) as standing:
        standing.next("one")


def test_one_that_ends_where_it_stands_is_told_at_the_next_mark(tmp_path: Path) -> None:
    script = "os.read = lambda *_: sys.exit('killed here'); mark('one')"
    with program(tmp_path, script) as standing:
        standing.next("one")
        assert standing._process is not None
        standing._process.wait()
        standing.go()
        with pytest.raises(MemacctError, match="ended before 'two': killed here"):
            standing.next("two")


def test_a_python_without_an_engine_is_named() -> None:
    code = (
        "from memacct.calibration import calibrate\n"
        "from memacct._errors import ConfigError\n"
        "try: calibrate(python='/usr/bin/python3', out=None)\n"
        "except ConfigError as error: print(error)\n"
    )
    with SimulatedGpu() as gpu:
        done = gpu.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert "/usr/bin/python3 lacks torch and vllm" in done.stdout, done.stderr
