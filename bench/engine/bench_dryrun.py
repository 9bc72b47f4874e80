"""How long a dry run takes, and how much of the host's memory: cold, again, cached, interpolated.

    python -m bench.engine.bench_dryrun [--model NAME] [--gpu GPU] [--whole] [--json FILE]

NAME is one of bench/dryrun/models. Each is the whole command, from its start to its end:

    cold          nothing of a dry run is cached but the simulated runtime, compiled once for an
                  environment (its time is told apart); Python's .pyc and the kernel's page cache
                  are there
    again         another start, with the Triton kernels of the first
    cached        the same question
    interpolated  another utilization, which is reckoned from the first
    whole         with --whole: a start that leaves nothing out (MEMACCT_DRYRUN_QUICK=0), whose
                  answer must be the same

Exit status 1: an answer differs, or a budget is passed. Budgets count for an idle machine with two
cores; what else ran shows in each load average.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.dryrun.models_cut import write_model

import memacct
from memacct._units import GIB, MIB
from memacct.sim._build import build_runtime

COLD_S = 40.0
CACHED_S = 3.0
HOST_BYTES = 2 * GIB
ANSWERED = (0, 1)  # it starts, it does not fit
# What must be the same however an answer was come by.
ANSWER = ("verdict", "ranks", "kv_tokens", "concurrency")


def measured(command: str, gpu: str, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A dry run's JSON, with what it took."""
    line = [sys.executable, "-m", "memacct", "dryrun", "--json", "--gpu", gpu, *options, "--"]
    cpu_s, begin_s = children_cpu_s(), time.monotonic()
    done = subprocess.run([*line, *command.split()], stdout=subprocess.PIPE, check=False)
    if done.returncode not in ANSWERED:
        sys.exit(f"{command}: no answer (status {done.returncode})")
    wall_s = time.monotonic() - begin_s
    answer = json.loads(done.stdout)
    phases = {f"{each['name']}": round(each["seconds"], 1) for each in answer["timeline"]}
    return answer, {
        "wall_s": round(wall_s, 2),
        "cpu_s": round(children_cpu_s() - cpu_s, 2),
        "origin": answer["origin"],
        "host_held_bytes": answer["host"]["held"]["bytes"],
        **({"phases_s": phases} if answer["origin"] == "run" else {}),
        "load_average": round(os.getloadavg()[0], 1),
    }


def children_cpu_s() -> float:
    """CPU time of the processes that have ended below this one."""
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return times.ru_utime + times.ru_stime


def all_of(command: str, gpu: str, folder: Path, *, whole: bool) -> dict[str, Any]:
    """All measurements, with what they show."""
    kept = folder / "xdg"
    os.environ["XDG_CACHE_HOME"] = str(kept)
    begin_s = time.monotonic()
    build_runtime(python=os.environ.get("MEMACCT_ENGINE_PYTHON"))
    found: dict[str, Any] = {"compiling_runtime_s": round(time.monotonic() - begin_s, 1)}
    first, found["cold"] = measured(command, gpu)
    answers = {}
    answers["again"], found["again"] = measured(command, gpu, "--no-cache")
    answers["cached"], found["cached"] = measured(command, gpu)
    other = f"{command} --gpu-memory-utilization 0.8"
    _, found["interpolated"] = measured(other, gpu)
    if whole:
        complete = f"MEMACCT_DRYRUN_QUICK=0 {command}"
        answers["whole"], found["whole"] = measured(complete, gpu, "--no-cache")
    found["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    tokens = first["kv_tokens"]
    found["kv_tokens"] = tokens and tokens["value"]
    found["different"] = [
        f"{name}: {key}"
        for name, answer in answers.items()
        for key in ANSWER
        if answer[key] != first[key]
    ]
    return found


def wrong_with(found: dict[str, Any]) -> list[str]:
    """What was not as it should be, in words."""
    wrong = [f"another answer: {each}" for each in found["different"]]
    origins = {"cold": "run", "again": "run", "cached": "cache", "interpolated": "interpolated"}
    budgets = {"cold": COLD_S, "cached": CACHED_S, "interpolated": CACHED_S}
    for name, origin in origins.items():
        if found[name]["origin"] != origin:
            wrong.append(f"{name}: came from a {found[name]['origin']}")
        if found[name]["wall_s"] > budgets.get(name, float("inf")):
            wrong.append(f"{name}: {found[name]['wall_s']} s, over {budgets[name]:.0f} s")
    held_bytes = max(found["cold"]["host_held_bytes"], found["peak_rss_bytes"])
    if held_bytes > HOST_BYTES:
        wrong.append(f"{held_bytes / MIB:.0f} MiB of the host's memory")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Llama-3.1-8B-Instruct")
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--options", default="", help="more of vllm serve")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--json", type=Path, help="kept there, beside what other models took")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = write_model(Path(name) / chosen.model, chosen.model)
        command = f"vllm serve {model} {chosen.options}"
        found = all_of(command, chosen.gpu, Path(name), whole=chosen.whole)
    question = " ".join(f"{chosen.model} {chosen.options}".split()) + f" on {chosen.gpu}"
    print(question, json.dumps(found, indent=1))
    if chosen.json:
        keep(chosen.json, question, found)
    wrong = wrong_with(found)
    print(*wrong, sep="\n")
    return int(bool(wrong))


def keep(file: Path, question: str, found: dict[str, Any]) -> None:
    """Adds what was found to the file's other questions."""
    old = json.loads(file.read_text()) if file.exists() else {}
    machine = {
        "cpu_count": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "memacct": memacct.__version__,
    }
    runs = {**old.get("runs", {}), question: found}
    file.write_text(json.dumps({"machine": machine, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
