"""``memacct snap``: the short way gives what typer would, and typer tells every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from memacct.cli import app
from memacct.cli._fast import parse_snap

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULTS: dict[str, Any] = {
    "pid": None,
    "tree": False,
    "host": "breakdown",
    "devices": "auto",
    "as_json": False,
}


def memacct(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "memacct", *arguments],
        check=False,
        text=True,
        capture_output=True,
        timeout=60,
    )


def by_typer(
    arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any] | None, int]:
    """What the command function is called with; None if typer refuses."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("memacct.cli._snap.run_snap", lambda **given: calls.append(given))
    result = CliRunner().invoke(app, ["snap", *arguments])
    return (calls[0] if calls else None), result.exit_code


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--pid", "4711"),
        ("--pid=4711", "--tree"),
        ("--host", "rollup", "--devices=none", "--json"),
        ("--devices", "0,GPU-5f", "--pid", "1", "--pid", "2"),
        ("--devices=", "--json", "--json"),
        ("--host=a=b",),
    ],
)
def test_the_short_way_understands_what_typer_does(
    arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = parse_snap(arguments)
    assert short is not None
    assert (DEFAULTS | short, 0) == by_typer(arguments, monkeypatch)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--pid",),
        ("--pid", "x"),
        ("--pid", "0"),
        ("--pid", "-3"),
        ("--tree=yes",),
        ("--depth", "3"),
        ("extra",),
        ("--", "x"),
        ("-p", "3"),
    ],
)
def test_all_else_is_left_to_typer(arguments: Sequence[str]) -> None:
    assert parse_snap(arguments) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pid", "99999999"), "there is no process 99999999"),
        (("--host", "all"), "--host: 'all' is not one of counters, breakdown, rollup, mappings"),
        (("--tree",), "--tree is about a process: give --pid, too"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(arguments: Sequence[str], said: str) -> None:
    done = memacct("snap", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"memacct: {said}\n"


def test_help_is_typers() -> None:
    done = memacct("snap", "--help")
    assert done.returncode == 0
    assert "--devices" in done.stdout


def test_one_process_on_the_host_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        done = memacct("snap", "--pid", str(child.pid), "--devices", "none", "--json")
        told = json.loads(done.stdout)
        child.kill()
    assert (told["schema_version"], told["kind"], told["pid"]) == (1, "snap", child.pid)
    assert told["gpus"] is None
    host = told["process"]["host"]
    assert host["rss_bytes"] == host["held_bytes"] + host["reclaimable_bytes"]
    assert told["limits"]["headroom_bytes"] > 0


def test_typer_is_not_loaded_on_the_short_way() -> None:
    program = (
        "import sys; from memacct.cli import main; sys.argv = ['memacct', 'snap']; main(); "
        "print(sorted({'typer', 'rich', 'pydantic', 'numpy', 'dataclasses'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, text=True, capture_output=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_closed_pipe_is_no_traceback() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m memacct snap --json | true"],
        check=False,
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
