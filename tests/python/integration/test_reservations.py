"""Reservations among real processes: never more than there is, and none of the dead."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from memacct._errors import ConfigError
from memacct._units import GIB
from memacct.reservations import Reservations

if TYPE_CHECKING:
    from pathlib import Path

# Reserves 10 GiB of 32 if they are left, says whether, and holds it until its input ends.
TAKE = """
import sys
from memacct.reservations import Reservations
found = Reservations(sys.argv[1])
with found.exclusive():
    mine = None
    if found.promised().get("GPU-a", 0) + (10 << 30) <= 32 << 30:
        mine = found.reserve({"GPU-a": 10 << 30}, "test")
print(mine is not None, flush=True)
sys.stdin.read()
"""


def take(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "True\n"


def test_of_many_at_once_as_many_get_it_as_there_is_room(tmp_path: Path) -> None:
    processes = [take(tmp_path) for _ in range(8)]
    assert sum(answer(process) for process in processes) == 3
    assert Reservations(tmp_path).promised() == {"GPU-a": 30 * GIB}
    for process in processes:
        process.communicate(timeout=30)
    assert Reservations(tmp_path).promised() == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_those_of_the_dead_are_over(tmp_path: Path, number: signal.Signals) -> None:
    process = take(tmp_path)
    assert answer(process)
    assert Reservations(tmp_path).promised() == {"GPU-a": 10 * GIB}
    process.send_signal(number)
    process.communicate(timeout=30)
    assert len(list(tmp_path.glob("*.json"))) == 1, "it could take nothing away"
    assert Reservations(tmp_path).promised() == {}
    assert list(tmp_path.glob("*.json")) == []


def test_a_holder_that_is_killed_inside_the_lock_does_not_keep_it(tmp_path: Path) -> None:
    source = (
        "import sys; from memacct.reservations import Reservations\n"
        "with Reservations(sys.argv[1]).exclusive():\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    process.kill()
    process.communicate(timeout=30)
    assert Reservations(tmp_path).promised() == {}


def test_what_is_held_is_told_and_can_change(tmp_path: Path) -> None:
    mine, others = Reservations(tmp_path), Reservations(tmp_path)
    with mine.exclusive():
        reservation = mine.reserve({"GPU-a": 5, "GPU-b": 7}, "serve")
    (held,) = others.held()
    assert (held.pid, held.what) == (os.getpid(), "serve")
    reservation.update({"GPU-a": 0, "GPU-b": 3})
    assert others.promised() == {"GPU-a": 0, "GPU-b": 3}
    reservation.release()
    reservation.release()
    assert others.promised() == {}
    assert not reservation.is_held


def test_a_program_that_is_started_meanwhile_does_not_inherit_it(tmp_path: Path) -> None:
    reservations = Reservations(tmp_path)
    with reservations.exclusive():
        reservation = reservations.reserve({"GPU-a": 1})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        os.close(reservation._fd)  # as the end of this process would
        assert Reservations(tmp_path).promised() == {}
        child.communicate(b"\n")


def test_reserving_without_looking_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exclusive"):
        Reservations(tmp_path).reserve({"GPU-a": 1})


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"schema_version": 1}', b"\xff", b'{"schema_version": 99}']
)
def test_a_file_that_says_nothing_counts_for_nothing(tmp_path: Path, text: bytes) -> None:
    reservations = Reservations(tmp_path)
    with reservations.exclusive():
        reservation = reservations.reserve({"GPU-a": 9})
    reservation.path.write_bytes(text)
    assert reservations.promised() == {}
    reservation.path.write_text(
        json.dumps(
            {
                "schema_version": 1,
                "pid": 1,
                "start_ticks": 1,
                "what": "",
                "bytes_by_uuid": {"GPU-a": -5},
            }
        )
    )
    assert reservations.promised() == {"GPU-a": 0}
    reservation.release()


def test_the_folder_is_everybody_s_and_the_files_are_their_own(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        reservations = Reservations(tmp_path / "held")
        with reservations.exclusive():
            reservation = reservations.reserve({"GPU-a": 9})
    finally:
        os.umask(before)
    assert stat.S_IMODE(reservations.folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE(reservation.path.stat().st_mode) == 0o644
    assert stat.S_IMODE((reservations.folder / "lock").stat().st_mode) == 0o644
    reservation.release()


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="not a folder"):
        Reservations(tmp_path / "file")
    with pytest.raises(ConfigError, match="file/below"):
        Reservations(tmp_path / "file" / "below")
