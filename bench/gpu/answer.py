"""One command that asks a real GPU all that memacct assumes of it, in less than 8 minutes.

    python bench/gpu/answer.py [--out FILE] [--save] [--only NAME,NAME] [--short] [--installed]

Needs what a PyTorch image holds: Python 3.10 or newer, a C++20 compiler, CMake, pybind11 and
scikit-build-core; no network, no pytest. Builds memacct into a temporary folder. Progress goes to
stderr; the last line of stdout is the whole result as JSON, which is also written to a file.
Exit status: 0 all was answered and agrees; 1 something disagrees, failed or ran out of time;
2 there is no GPU; 3 memacct cannot be built.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from questions import NAMES, QUESTIONS
from questions.build import ROOT, build
from questions.machine import NoGpuError, describe, only_first_device, open_nvml
from questions.nvml import Nvml
from questions.run import run_question

LIMIT_S = 460.0  # of all together: 8 minutes, less what the end takes
LEAST_S = 5.0
AGREED, DISAGREED, NO_GPU, NO_BUILD = range(4)


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-answers.json")
    parser.add_argument(
        "--save",
        action="store_true",
        help="also as bench/results/gpu-NAME-DRIVER.json, if all is asked",
    )
    parser.add_argument("--only", default=",".join(NAMES), help="names of questions")
    parser.add_argument("--short", action="store_true", help="few repetitions: a trial")
    parser.add_argument("--installed", action="store_true", help="memacct as it is installed")
    parser.add_argument("--build-limit-s", type=float, default=150.0)
    options = parser.parse_args()
    options.names = options.only.split(",")
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"--only {','.join(unknown)}: not one of {', '.join(NAMES)}")
    return options


def prepare(options: argparse.Namespace, folder: Path) -> str:
    """Builds memacct and puts it on the path of the questions' processes; returns how."""
    if options.installed:
        if importlib.util.find_spec("memacct") is None:
            raise RuntimeError("--installed: memacct is not installed for this Python")
        return "installed"
    say("building memacct (half a minute to three) ...", end=" ")
    begin_s = time.monotonic()
    how = build(folder, options.build_limit_s)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([before] if before else [])])
    say(f"by {how}, {time.monotonic() - begin_s:.0f} s")
    return how


def ask_all(options: argparse.Namespace, end_s: float) -> Iterator[dict[str, Any]]:
    """Asks one question after the other; those for which no time is left say so."""
    chosen = [question for question in QUESTIONS if question.name in options.names]
    for place, question in enumerate(chosen, 1):
        left_s = end_s - time.monotonic()
        say(f"[{place}/{len(chosen)}] {question.name}: {question.title}", end=" ")
        if left_s < LEAST_S:
            answer = {
                "question": question.number,
                "name": question.name,
                "status": "not_asked",
                "title": question.title,
                "answer": "no time was left",
                "agrees": None,
                "checks": [],
                "figures": {},
                "not_asked": ["all: no time was left"],
                "took_s": 0.0,
            }
        else:
            limit_s = min(question.limit_s, left_s)
            answer = run_question(question.name, short=options.short, limit_s=limit_s)
        _tell(answer)
        yield answer


def _tell(answer: dict[str, Any]) -> None:
    verdict = {True: "agrees", False: "DISAGREES", None: "nothing to compare"}[answer["agrees"]]
    say(f"({answer['took_s']} s)\n    {answer['status']}, {verdict}. {answer['answer']}")
    for check in answer["checks"]:
        if check["agrees"] is False:
            say(f"    ! expected: {check['expected']}; found: {check['found']}")
    for reason in answer["not_asked"]:
        say(f"    - not asked: {reason}")


def summary(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what disagrees, and what was not answered."""
    return {
        "disagreements": [
            {"name": answer["name"], **check}
            for answer in answers
            for check in answer["checks"]
            if check["agrees"] is False
        ],
        "failed": [a["name"] for a in answers if a["status"] in ("failed", "timed_out")],
        "not_asked": [f"{a['name']}: {reason}" for a in answers for reason in a["not_asked"]],
    }


def result_path(machine: dict[str, Any]) -> Path:
    """Returns where a result is kept: named by the GPU and its driver."""
    words = f"gpu-{machine['gpu']['name']}-{machine['gpu']['driver']}".lower()
    return ROOT / "bench" / "results" / (re.sub(r"[^a-z0-9.]+", "-", words) + ".json")


def write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def ask_here(options: argparse.Namespace, nvml: Nvml, begin_s: float) -> dict[str, Any]:
    """Asks everything and returns the result; after each answer it is in the file so far."""
    machine = describe(nvml)
    say(f"{machine['gpu']['name']}, driver {machine['gpu']['driver']}")
    free_bytes = nvml.free_bytes()
    answers: list[dict[str, Any]] = []
    result = {
        "format": 1,
        "taken": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "short": options.short,
        "machine": machine,
        "answers": answers,
    }
    with tempfile.TemporaryDirectory(prefix="memacct-build-") as folder:
        result["build"] = prepare(options, Path(folder) / "memacct")
        for answer in ask_all(options, begin_s + LIMIT_S):
            answers.append(answer)
            result["took_s"] = round(time.monotonic() - begin_s, 1)
            result["free_change_bytes"] = nvml.free_bytes() - free_bytes
            result.update(summary(answers))
            write(options.out, result)
    return result


def main() -> int:
    options = parse()
    begin_s = time.monotonic()
    try:
        nvml = open_nvml()
    except NoGpuError as error:
        say(f"no GPU here: {error}")
        return NO_GPU
    os.environ.update(only_first_device(nvml))
    try:
        result = ask_here(options, nvml, begin_s)
    except RuntimeError as error:
        say(str(error))
        return NO_BUILD
    kept = [options.out]
    if options.save and not options.short and options.names == list(NAMES):
        kept.append(result_path(result["machine"]))
        write(kept[-1], result)
    say("written: " + ", ".join(map(str, kept)))
    print(json.dumps(result), flush=True)
    return DISAGREED if result["disagreements"] or result["failed"] else AGREED


if __name__ == "__main__":
    sys.exit(main())
