"""docs/dryrun-models.md from the stored results: what starts, what does not, and why.

bench/dryrun/models_page.py         writes the page
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .models_cases import CASES, EAGER, LENGTH
from .models_reasons import reason
from .models_results import read_results

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .models_cases import Case

PAGE = Path(__file__).parents[2] / "docs" / "dryrun-models.md"
GIB = 1 << 30
INTRODUCTION = """# What starts in a dry run

Each line below is a start of the real vLLM 0.33.0 (torch 2.14.0, CUDA 13.0) with made-up weights on
a simulated GPU, with the defaults of `vllm serve` but for the options told: `make dryrun-models`
(`bench/dryrun/models_start.py`; one line again: `make dryrun-models DRYRUN_ARGS="--again REGEX"`).
The models are public ones, by their `config.json` alone (`bench/dryrun/models/`); most are cut to a
few layers, because what an architecture needs to start is in its first layers. Weights, peak and KV
tokens are those of the cut model, on the first GPU; "host" is what the engine held of the host's
memory. All times are those of two cores that others used too.

Where a folder has only config.json, memacct makes a tokenizer, and for a multimodal model a
processor with the settings that were published with a model of that type
(`python/memacct/dry_run/processors.json`); a model's own files are used where they are there.
Convolutions of encoders have their outputs, but not the workspace that cuDNN would take. The memory
of custom all-reduce is counted; what is written to it is not shared.

These starts were without FlashInfer. With FlashInfer 0.7.2.post1 and CuTe-DSL there started,
compiled and with graphs: Llama-3.1-8B-Instruct on an H100 (with FLASHINFER asked for, and an FP8
cache), on a B200 (without CuTe-DSL too: the same to the byte) and on two; its NVFP4 and gpt-oss-20b
(4 layers) on a B200; Qwen2.5-7B-Instruct on an RTX 5090, Qwen3-8B on an RTX PRO 6000; DeepSeek-V3
(4 layers) on a B200, with FLASHINFER_MLA. Attention was FlashInfer's on the B200 only, unless asked
for; [what that takes](dryrun.md#flashinfer).

"""
HEAD = "| {} | options | layers | GPUs | outcome | weights | peak | KV tokens | host | time |\n"
RULE = "|---|---|---|---|---|---|---|---|---|---|\n"


def gib(count: int | None) -> str:
    """Bytes for a cell."""
    return "–" if count is None else f"{count / GIB:.2f} GiB"


def shown(case: Case) -> str:
    """The options that distinguish a case, as a cell."""
    common = {*EAGER, *LENGTH}
    text = " ".join(option for option in case.options if option not in common)
    variables = " ".join(f"{name}={value}" for name, value in case.environ)
    both = f"{variables} {text}".strip()
    for name, _ in case.drafts:
        both = both.replace("{" + name + "}", name)
    return f"`{both}`" if both else ""


def row(case: Case, found: Mapping[str, Any]) -> str:
    """One line of a table."""
    tokens = found.get("kv_tokens")
    cells = (
        f"{case.model}{f': {case.title}' if case.title else ''}",
        shown(case),
        str(case.layers_count or "all"),
        f"{case.count} x {case.gpu}",
        found["verdict"],
        gib(found.get("weights_bytes")),
        gib(found.get("activation_bytes")),
        "–" if tokens is None else f"{round(tokens):,}",
        gib(found.get("host_bytes")),
        f"{found['took_s']:.0f} s",
    )
    return f"| {' | '.join(cells)} |\n"


def tables(results: Mapping[str, Any]) -> Iterator[str]:
    """A table for each group of cases that have been run."""
    run = [case for case in CASES if case.key in results]
    for group, cases in groupby(run, key=lambda case: case.group):
        yield f"## {group[0].upper()}{group[1:]}\n\n"
        yield HEAD.format("model") + RULE
        yield from (row(case, results[case.key]) for case in cases)
        yield "\n"


def refused(results: Mapping[str, Any]) -> Iterator[str]:
    """What does not start, with the engine's words and whose that is."""
    yield "## What does not start, and why\n\n"
    yield "| what | the engine's words | why |\n|---|---|---|\n"
    for case in CASES:
        found = results.get(case.key)
        if found is None or found["verdict"] == "starts":
            continue
        words = " ".join((found.get("error") or found.get("refusal") or "").split())
        words = words.replace("|", "\\|").replace("`", "'")
        what = f"{case.model}{f': {case.title}' if case.title else ''} {shown(case)}".strip()
        yield f"| {what} | {words} | {reason(case, found)} |\n"


def missing(results: Mapping[str, Any]) -> Iterator[str]:
    """What is to be tried and has no result, so that nobody takes it for started."""
    cases = [case for case in CASES if case.key not in results]
    if not cases:
        return
    yield f"\n## Not run yet\n\n{len(cases)} more are to be tried (`make dryrun-models`):\n\n"
    for case in cases:
        title = f": {case.title}" if case.title else ""
        yield f"- {case.group}: {case.model}{title} {shown(case)}".rstrip() + "\n"


def page(results: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    started = sum(found["verdict"] == "starts" for found in results.values())
    parts.append(f"{started} of the {len(results)} that were run start.\n\n")
    return "".join([*parts, *tables(results), *refused(results), *missing(results)])


if __name__ == "__main__":
    PAGE.write_text(page(read_results()))
