"""docs/dryrun-logs.md: each public log beside what was foretold of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .cases import GIB, Case
from .judge import Judgement, judge
from .summary import Summary, summarize

Results = Mapping[str, Mapping[str, Any]]
FINDINGS = Path(__file__).parent / "findings.md"

HEAD = """# Public logs, foretold

Written by `make dryrun-logs`. Each row is a start-up log that somebody has published of a vLLM on a
real GPU. `memacct dryrun` was given the log's command line, its card and, where it states one,
CUDA's total, and ran **the log's own vLLM version** on a simulated GPU: no GPU, no weights, no
network. Cases and their sources: `bench/dryrun/cases.json`; raw results:
`bench/results/dryrun-logs-*.json`.

Logs that are *held out* were not looked at while the dry run was made, and nothing is tuned to a
single one. *Near*: KV cache within 2 % or 0.3 GiB of the log (of tokens where it prints them, else
of GiB). *In range*: the stated range contains the logged value. Weights: within 0.5 % of what the
log prints, which is rounded to 0.01 GiB. All sizes are of one GPU.
"""


def page(cases: Sequence[Case], results: Results) -> str:
    """The whole page."""
    judged = {
        case.key: judge(case, results[case.key])
        for case in cases
        if case.key in results and "error" not in results[case.key]
    }
    parts = [HEAD, summaries(cases, judged), tables(cases, results, judged)]
    parts += [terms(cases, judged), FINDINGS.read_text(), sources(cases)]
    return "\n".join(part.strip() + "\n" for part in parts)


def short(case: Case, result: Mapping[str, Any]) -> str:
    """A line of progress."""
    one = judge(case, result)
    kv = "no KV size" if one.kv_ratio is None else f"KV {percent(one.kv_ratio)}"
    told = {True: "in range", False: "not in range", None: "no range"}[one.is_contained]
    right = result["verdict"] if one.is_verdict_right else f"**{result['verdict']}**"
    return f"{right}, {kv} ({gib(one.kv_difference_gib)}), {told}, {result['took_s']:.0f} s"


# ---- the summary


def summaries(cases: Sequence[Case], judged: Mapping[str, Judgement]) -> str:
    """One row a group; those stated in full first, as they are what is promised for."""
    groups = {
        "looked at, stated in full": lambda case: not case.held_out and case.stated == "full",
        "held out, stated in full": lambda case: case.held_out and case.stated == "full",
        "vLLM 0.20 and newer, stated in full": lambda case: (
            case.number >= (0, 20) and case.stated == "full"
        ),
        "older, stated in full": lambda case: case.number < (0, 20) and case.stated == "full",
        "not stated in full": lambda case: case.stated != "full",
        "all": lambda _: True,
    }
    lines = [
        "## In short",
        "",
        (
            "| logs | run | verdict right | KV near | in range | KV error: median, worst "
            "| of GiB: median, worst | weights near |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, belongs in groups.items():
        chosen = [judged[case.key] for case in cases if case.key in judged and belongs(case)]
        if chosen:
            lines.append(summary_row(name, summarize(chosen)))
    missing = [case.key for case in cases if case.key not in judged]
    lines += ["", f"Without an answer: {', '.join(missing)}." if missing else "Each has an answer."]
    return "\n".join(lines)


def summary_row(name: str, of: Summary) -> str:
    """One group."""
    return row(
        name,
        of.verdicts_count,
        f"{of.verdicts_right_count}",
        f"{of.near_count} of {of.count}",
        f"{of.contained_count} of {of.count}",
        f"{percent(of.kv_ratio_median, sign=False)}, {percent(of.kv_ratio_worst, sign=False)}",
        f"{gib(of.kv_gib_median, sign=False)}, {gib(of.kv_gib_worst, sign=False)}",
        f"{of.weights_near_count} of {of.weights_count}",
    )


# ---- case by case


def tables(cases: Sequence[Case], results: Results, judged: Mapping[str, Judgement]) -> str:
    """The cases that were looked at, and those that were held out."""
    parts = []
    for title, held_out in (("Looked at", False), ("Held out", True)):
        lines = [
            f"## {title}",
            "",
            (
                "| case | vLLM | weights, GiB: log / foretold | KV cache: log / foretold | range "
                "| error | near | in range |"
            ),
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            case_row(case, results.get(case.key), judged.get(case.key))
            for case in sorted(cases, key=lambda case: case.number, reverse=True)
            if case.held_out == held_out
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def case_row(case: Case, result: Mapping[str, Any] | None, one: Judgement | None) -> str:
    """One log; what it leaves open is among the sources below."""
    name = case.key + ("" if case.stated == "full" else " (not stated in full)")
    if result is None:
        return row(name, case.vllm, "", "not run", "", "", "", "")
    if one is None:
        return row(
            name, case.vllm, "", f"no answer: {first_sentence(result['error'])}", "", "", "", ""
        )
    weights = f"{number(case.log.weights_gib)} / {number(in_gib(result.get('weights_bytes')))}"
    if not one.is_verdict_right or not case.log.fits:
        told = "starts" if case.log.fits else f"does not fit ({case.log.kv_gib:.2f} GiB)"
        right = "yes" if one.is_verdict_right else "**no**"
        return row(name, case.vllm, weights, f"{told} / {result['verdict']}", "", "", right, "")
    error = f"{percent(one.kv_ratio)} ({gib(one.kv_difference_gib)})"
    return row(
        name, case.vllm, weights, *kv_texts(case, result), error,
        yes(one.is_kv_near), yes(one.is_contained),
    )  # fmt: skip


def kv_texts(case: Case, result: Mapping[str, Any]) -> tuple[str, str]:
    """The KV cache in the log's unit, and the range."""
    if case.log.kv_tokens is not None:
        low, high = result["kv_tokens_low"], result["kv_tokens_high"]
        return f"{case.log.kv_tokens:,} / {result['kv_tokens']:,} tokens", f"{low:,} to {high:,}"
    low, high = (in_gib(result[name]) for name in ("kv_low_bytes", "kv_high_bytes"))
    sizes = f"{number(case.log.kv_gib)} / {number(in_gib(result['kv_bytes']))} GiB"
    return sizes, f"{number(low)} to {number(high)}"


def terms(cases: Sequence[Case], judged: Mapping[str, Judgement]) -> str:
    """Where the differences are, of those logs that print their terms."""
    names = ("weights", "peak", "non-torch", "consumed", "graphs estimated", "graphs")
    lines = [
        "## By term",
        "",
        "Foretold less logged, GiB. *Consumed* is weights and non-torch; *graphs estimated* is",
        "what newer versions take off the KV cache for CUDA graphs, *graphs* what they took.",
        "A log rounds each to 0.01 GiB.",
        "",
        f"| case | vLLM | {' | '.join(names)} | KV cache |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for case in sorted(cases, key=lambda case: case.number, reverse=True):
        one = judged.get(case.key)
        if one is not None and set(one.differences_gib) - {"weights"}:
            cells = [signed(one.differences_gib.get(name)) for name in names]
            lines.append(row(case.key, case.vllm, *cells, signed(one.kv_difference_gib)))
    return "\n".join(lines)


def sources(cases: Iterable[Case]) -> str:
    """Where each log is, and what it leaves open."""
    lines = ["## Sources", ""]
    for case in cases:
        words = " ".join(
            [*(f"{name}={value}" for name, value in case.environ.items()), "vllm serve", case.model,
             *case.arguments]
        )  # fmt: skip
        left = f" Left open: {case.open}." if case.open else ""
        place = " on WSL2" if case.wsl2 else ""
        card = case.card or (case.device or {})["driver_name"]
        count = f"{case.count} x " if case.count > 1 else ""
        lines.append(f"- **{case.key}**: {count}{card}{place}, `{words}`: {case.source}.{left}")
    return "\n".join(lines)


# ---- text


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return (
        "| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |"
    )


def in_gib(value: int | None) -> float | None:
    """Bytes as GiB."""
    return None if value is None else value / GIB


def number(value: float | None) -> str:
    """Two decimals, as logs have them."""
    return "–" if value is None else f"{value:.2f}"


def signed(value: float | None) -> str:
    """A difference in GiB without its unit."""
    return "–" if value is None else f"{value:+.2f}"


def gib(value: float | None, *, sign: bool = True) -> str:
    """A difference in GiB."""
    return "–" if value is None else f"{value:{'+' if sign else ''}.2f} GiB"


def percent(ratio: float | None, *, sign: bool = True) -> str:
    """A ratio in per cent."""
    return "–" if ratio is None else f"{100 * ratio:{'+' if sign else ''}.2f} %"


def yes(value: bool | None) -> str:
    """A judgement as a word."""
    return {True: "yes", False: "**no**", None: "–"}[value]


def first_sentence(text: str, length: int = 160) -> str:
    """As much of an error as a cell holds."""
    return text.strip().splitlines()[0][:length] if text.strip() else "?"
