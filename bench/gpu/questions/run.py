"""Runs a question in a process of its own, with a time limit; needs no memacct itself."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import QUESTIONS
from .sessions import end_session

HERE = Path(__file__).resolve().parents[1]
HELPERS = HERE.parents[1] / "tests" / "python" / "helpers"


def run_question(
    name: str,
    *,
    short: bool = False,
    limit_s: float | None = None,
    env: Mapping[str, str] | None = None,
    grace_s: float = 10.0,
) -> dict[str, Any]:
    """Returns a question's answer as plain data, or how its process ended.

    Args:
        name: of the question.
        short: fewer repetitions.
        limit_s: instead of the question's.
        env: the environment; default this process's.
        grace_s: what it gets after its limit to end what it started (a daemon).
    """
    question = next(question for question in QUESTIONS if question.name == name)
    limit_s = question.limit_s if limit_s is None else limit_s
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="memacct-gpu-") as folder:
        out = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "questions", name, str(out), *(["short"] if short else [])]
        environ = dict(os.environ if env is None else env)
        environ["MEMACCT_QUESTION_FOLDER"] = folder
        paths = [str(HERE), str(HELPERS), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        ended = _run(command, environ, (limit_s, grace_s), Path(folder) / "errors.txt")
        if out.exists():
            answer: dict[str, Any] = json.loads(out.read_text())
        else:
            answer = {"status": "failed", "answer": ended, "agrees": None}
            answer.update(checks=[], figures={}, not_asked=[])
            if ended.startswith("ran out of"):
                answer["status"] = "timed_out"
    head = {"question": question.number, "name": name, "title": question.title}
    return {**head, **answer, "took_s": round(time.monotonic() - begin_s, 2)}


def _run(
    command: list[str], environ: dict[str, str], limits_s: tuple[float, float], errors: Path
) -> str:
    """Runs it to its end or the limit; returns in words how it ended."""
    limit_s, grace_s = limits_s
    with errors.open("wb") as stderr:
        # A session of its own: whatever it started ends with it.
        process = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
            process.terminate()  # it may have a daemon to quit
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        finally:
            end_session(process.pid)
            process.wait()
    if code is None:
        return f"ran out of its {limit_s:.0f} s"
    lines = errors.read_text(errors="replace").strip().splitlines()
    return f"ended with {code}: " + " | ".join(lines[-3:])
