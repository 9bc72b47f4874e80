"""The results as a page: one table of scenarios, one of shapes, for each kind of worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from memacct._units import MIB

if TYPE_CHECKING:
    from .versions import Target

SCENARIOS = {
    "a": "alone",
    "b": "neighbour releases",
    "c": "neighbour allocates",
    "d": "two engines at once",
    "e": "graph profiling",
}
SHAPES = {
    "fork": "fork",
    "spawn": "spawn",
    "in-process": "in-process",
    "runner": "the other runner",
    "tp2": "world size 2",
    "dp2": "data parallel 2",
    "sleep": "sleep, wake_up",
}
REASON_LENGTH = 90
Entry = Mapping[str, Any]

HEAD = """# vLLM versions

Written by `make matrix`: for each version an environment of its own, and in it real engines,
stock and with memacct's native profiler, beside neighbours that move. Each cell compares the
bytes that an engine really allocated for its KV cache with those of the same engine alone on
the machine, without memacct. **exact**: the same to the byte; a number: that much more or less;
**fails**: the engine did not start. Raw results: `bench/results/`.
"""
GPU_HEAD = """
## GPU worker, on simulated GPUs

The CUDA builds of vLLM and PyTorch as published, on memacct's simulated GPUs. The neighbour
holds 7 GiB and, while the engine profiles, releases them (b), allocates 3 GiB more (c), or
256 MiB inside the second sample of a CUDA graph (e); before 0.18, which does not profile
graphs, in the profiling pass. Engines are forked from a process that has imported vLLM.
"""
SHAPE_HEAD = """
The neighbour allocates 3 GiB during profiling, on the second GPU where there are two; native,
compared with the isolated engine. fork is how a to e were started. The other runner is V2
before 0.28 and V1 from there on; before 0.30, where V2 does not profile graphs, e is V1's.
"""
CPU_HEAD = """
## CPU worker

The neighbour is a process of host memory: 2 GiB. Native counts what the worker holds, not what
the kernel can take back, so its KV cache alone is larger than stock's by design (a); b to d
compare with native alone. How much freed memory malloc keeps for the worker differs from start
to start: "own heap" is by how much, and the KV cache differs by the opposite. There are no
graphs to profile (e).
"""


def page(targets: Iterable[Target], versions: Mapping[str, Entry]) -> str:
    """The whole page. A target without results is a row that says so."""
    chosen = list(targets)
    gpu = [target for target in chosen if not target.is_cpu]
    cpu = [target for target in chosen if target.is_cpu]
    text = HEAD
    if gpu:
        text += GPU_HEAD + "\n" + table(gpu, versions, SCENARIOS)
        text += SHAPE_HEAD + "\n" + table(gpu, versions, SHAPES, about=False)
    if cpu:
        text += CPU_HEAD + "\n" + table(cpu, versions, SCENARIOS)
    return text + notes(chosen, versions)


def table(
    targets: list[Target],
    versions: Mapping[str, Entry],
    columns: Mapping[str, str],
    *,
    about: bool = True,
) -> str:
    """One row for each target."""
    with_about = ["date", "Python", "torch (CUDA)", "runner"] if about else []
    letters = [f"{key}: {title}" if len(key) == 1 else title for key, title in columns.items()]
    lines = [row(["vLLM", *with_about, *letters])]
    lines.append(row(["---"] * (1 + len(with_about) + len(letters))))
    for target in targets:
        entry = versions.get(target.name)
        first = about_cells(entry) if about else []
        lines.append(row([target.name, *first, *(cell(entry, key) for key in columns)]))
    return "\n".join(lines) + "\n"


def row(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(text.replace("|", "/").replace("\n", " ") for text in cells) + " |"


def about_cells(entry: Entry | None) -> list[str]:
    """Date, Python, torch with CUDA, and the runner that was used by default."""
    if entry is None or "about" not in entry:
        return ["" if entry is None else str(entry.get("date", "")), "", "", ""]
    about = entry["about"]
    cuda = f" ({about['cuda']})" if about.get("cuda") else ""
    return [entry["date"], about["python"], about["torch"].split("+")[0] + cuda, runner_of(entry)]


def runner_of(entry: Entry) -> str:
    """The default model runner: that of scenario a."""
    found = find(entry, "a")
    engines = found["engines"] if found else []
    return str(engines[0]["native"]["runner"] or "") if engines else ""


def find(entry: Entry, key: str) -> Entry | None:
    """The cell with that key."""
    return next((one for one in entry.get("cells", ()) if one["key"] == key), None)


def cell(entry: Entry | None, key: str) -> str:
    """What is shown for one case of one version."""
    if entry is not None and entry.get("error") is not None:
        return "not installed"
    if entry is not None and key == "fork":
        return fork_cell(entry)
    found = None if entry is None else find(entry, key)
    if found is None:
        return "not run"
    if found["verdict"] == "n/a":
        return f"n/a: {found['reason']}"
    if found["verdict"] == "alone":
        return f"n/a: fails alone too ({found['reason'].split(': ', 1)[-1][:REASON_LENGTH]})"
    return "; ".join(engine_text(one) for one in found["engines"])


def fork_cell(entry: Entry) -> str:
    """Whether scenario c was run by fork: vLLM may have been forced to spawn."""
    found = find(entry, "c")
    if found is None or not found["engines"]:
        return "not run"
    one = found["engines"][0]
    if one["native"].get("forced_spawn"):
        return "n/a: vLLM spawns here"
    return native_text(one)


def engine_text(one: Entry) -> str:
    """Stock's outcome, where it was run, and native's."""
    stock = one["stock"]
    if stock is None:
        return native_text(one)
    if stock["outcome"] != "served":
        return f"stock fails, {native_text(one)}"
    return f"stock {amount(one['stock_difference_bytes'])}, {native_text(one)}"


def native_text(one: Entry) -> str:
    """Native's outcome; a verdict that is not ok is said."""
    if one["native"]["outcome"] != "served":
        return "**native fails**"
    text = f"native {amount(one['native_difference_bytes'])}"
    if heap_bytes := one.get("native_heap_difference_bytes"):
        text += f" (own heap {heap_bytes / MIB:+,.1f} MiB)"
    return text if one["verdict"] == "ok" else f"**{text}: {one['verdict']}**"


def amount(differences: list[int] | None) -> str:
    """The largest difference of an engine's ranks, in MiB."""
    if not differences:
        return "?"
    largest = max(differences, key=abs)
    return "exact" if largest == 0 else f"{largest / MIB:+,.1f} MiB"


def notes(targets: Iterable[Target], versions: Mapping[str, Entry]) -> str:
    """Why something is not ok, in the words of the engine or the installer."""
    lines = []
    for target in targets:
        entry = versions.get(target.name)
        if entry is None:
            continue
        if entry.get("error") is not None:
            lines.append(f"- {target.name}: not installed: {last_line(entry['error'])}")
        for found in entry.get("cells", ()):
            if found["verdict"] in ("wrong", "not shown", "alone"):
                reason = last_line(found["reason"])
                lines.append(f"- {target.name} {found['key']}: {found['verdict']}: {reason}")
    return "\n## Notes\n\n" + "\n".join(lines) + "\n" if lines else ""


def last_line(text: str) -> str:
    """The last line that says something."""
    spoken = [line.strip() for line in text.splitlines() if line.strip()]
    return spoken[-1] if spoken else ""
