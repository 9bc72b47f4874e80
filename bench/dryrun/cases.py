"""The public logs as data: what was started, where, and what it printed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent
CASES = FOLDER / "cases.json"
MODELS = FOLDER / "models"
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the log printed, GiB and tokens as printed; None where it did not.

    Attributes:
        kv_gib: "Available KV cache memory"; negative where the model does not fit.
        graphs_estimated_gib: what the engine foretold for its CUDA graphs; graphs_gib: took.
        fits: whether the engine started.
    """

    weights_gib: float | None = None
    kv_gib: float | None = None
    kv_tokens: int | None = None
    concurrency: float | None = None
    consumed_gib: float | None = None
    peak_gib: float | None = None
    non_torch_gib: float | None = None
    graphs_estimated_gib: float | None = None
    graphs_gib: float | None = None
    total_gib: float | None = None
    free_gib: float | None = None
    fits: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One public log.

    Attributes:
        source: its address, or how it is found where it has none of its own.
        vllm: the version that wrote it, which is the one that is dry-run.
        card: its name in the catalogue; None where that has not got it.
        device: then, what is known of it: driver_name, total_mib by NVML, compute_capability,
            sm_count.
        total_gib: CUDA's total as logged (or as stated beside it); None: the catalogue's.
        wsl2: whether Windows holds the GPU.
        nvlink: whether several GPUs are joined by it; None: the source does not say.
        arguments: as after ``vllm serve MODEL``.
        stated: "full" if the source has all that determines the sizes, as far as it prints it.
        open: what the source leaves open, and what is taken for it.
        held_out: not looked at while the dry run was developed.
    """

    key: str
    source: str
    vllm: str
    card: str | None
    total_gib: float | None
    count: int
    wsl2: bool
    nvlink: bool | None = None
    model: str
    device: dict[str, Any] | None = None
    arguments: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    stated: Literal["full", "partly"] = "full"
    open: str = ""
    held_out: bool = False
    log: Log = field(default_factory=Log)

    @property
    def number(self) -> tuple[int, ...]:
        """vLLM's version, to compare with."""
        return tuple(int(part) for part in self.vllm.split("."))

    @property
    def folder(self) -> Path:
        """Where the model's config.json is."""
        return MODELS / self.model


def load(path: Path = CASES) -> tuple[Case, ...]:
    """All cases, in the file's order.

    Raises:
        ValueError: two have the same key, or a model has no config.json.
    """
    read = json.loads(path.read_text())["cases"]
    cases = tuple(
        Case(**{**one, "arguments": tuple(one["arguments"]), "log": Log(**one["log"])})
        for one in read
    )
    if len({case.key for case in cases}) != len(cases):
        raise ValueError(f"{path}: a key is there twice")
    for case in cases:
        if not (case.folder / "config.json").is_file():
            raise ValueError(f"{case.key}: {case.folder} has no config.json")
    return cases
