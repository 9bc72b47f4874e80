"""What is to be dry-run: an engine's command line, the machine it is for, who else is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine that the engine is to start on; all its GPUs are alike.

    Attributes:
        gpu: as it was asked for: a card's name in the catalogue, or "total=80GiB".
        title: for people.
        driver_name: the name that the simulated driver gives it; engines choose by it.
        total_bytes: of one GPU by NVML.
        cuda_total_bytes: of one GPU by CUDA; a utilization is a part of it.
        compute_capability: (9, 0) for a Hopper.
        sm_count: multiprocessors; None is not known, and the simulated driver tells an H100's.
        l2_bytes: None likewise.
        count: GPUs.
        neighbours_bytes: what others hold on every GPU, one process each.
        nvlink: the GPUs are joined by it; None: as cards of that name mostly are.
        driver: its version; None: a recent one.
        wsl: below Windows.
        sources: where each figure comes from, by its name here; those that are given or assumed
            say so.
    """

    gpu: str
    title: str
    driver_name: str
    total_bytes: int
    cuda_total_bytes: int
    compute_capability: tuple[int, int]
    sm_count: int | None = None
    l2_bytes: int | None = None
    count: int = 1
    neighbours_bytes: tuple[int, ...] = ()
    nvlink: bool | None = None
    driver: str | None = None
    wsl: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One dry run. Equal requests have equal answers.

    Attributes:
        model: the folder with config.json, or the file.
        arguments: the engine's own options, as after ``vllm serve MODEL``.
        environ: variables that stood before the command (``VLLM_USE_V2_MODEL_RUNNER=0 vllm ...``).
        machine: where.
        python: the interpreter whose vLLM is run.
    """

    model: Path
    arguments: tuple[str, ...]
    machine: Machine
    python: Path
    environ: Mapping[str, str] = field(default_factory=dict)
