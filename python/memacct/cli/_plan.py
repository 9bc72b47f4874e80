"""``memacct plan``: an engine's memory from a model's config, before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memacct._units import parse_bytes
from memacct.cli._commands import BAD_NEWS

if TYPE_CHECKING:
    from memacct.planning.gpus import Gpu


def plan(  # noqa: PLR0917 (the command line's options)
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model's folder, or its config.json.")
    ],
    max_model_len: Annotated[
        int | None, typer.Option(help="Tokens of the longest request; default the model's limit.")
    ] = None,
    utilization: Annotated[
        float, typer.Option(help="Part of the GPU for the engine, as --gpu-memory-utilization.")
    ] = 0.92,
    tp: Annotated[int, typer.Option(help="GPUs that share each layer (tensor parallel).")] = 1,
    pp: Annotated[int, typer.Option(help="Stages of layers (pipeline parallel).")] = 1,
    kv_dtype: Annotated[
        str, typer.Option(help="auto, bfloat16, float16, fp8, fp8_e4m3 or fp8_e5m2.")
    ] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto",
    block_size: Annotated[int | None, typer.Option(help="Tokens of a block; default 16.")] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(help="Default that of `vllm serve` on this GPU.")
    ] = None,
    max_num_seqs: Annotated[
        int | None, typer.Option(help="Default that of `vllm serve` on this GPU.")
    ] = None,
    prefix_caching: Annotated[bool, typer.Option(help="Matters to Mamba-like layers.")] = True,
    enforce_eager: Annotated[bool, typer.Option("--enforce-eager", help="No CUDA graphs.")] = False,
    kv_cache: Annotated[
        str | None, typer.Option(help="Bytes of the KV cache, where an engine's log tells them.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Bytes of the weights on one GPU, where they are known.")
    ] = None,
    gpu: Annotated[
        str,
        typer.Option(help="free (this machine's, as it is now), a name such as h100, or a size."),
    ] = "free",
    device: Annotated[int, typer.Option(help="Which of this machine's GPUs; NVML's index.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Plan an engine's memory: weights, KV cache, how many requests it holds, what would fit.

    Reads config.json and the headers of safetensors files; starts nothing, downloads nothing.
    Exit status: 0 it fits, or nothing is said against it; 1 it does not; 2 it cannot be planned.
    """
    from memacct.planning import PlanSettings, make_plan, read_config
    from memacct.report.plan_json import plan_to_dict
    from memacct.report.plan_text import plan_text

    settings = PlanSettings(
        max_model_len_tokens=max_model_len,
        utilization=utilization,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        kv_dtype=kv_dtype,
        dtype=dtype,
        block_tokens=block_size,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
        prefix_caching=prefix_caching,
        enforce_eager=enforce_eager,
        kv_cache_bytes=None if kv_cache is None else parse_bytes(kv_cache),
        weights_bytes=None if weights is None else parse_bytes(weights),
    )
    made = make_plan(read_config(model), settings, _gpu(gpu, device))
    print(json.dumps(plan_to_dict(made), indent=1) if as_json else plan_text(made))
    raise typer.Exit(BAD_NEWS if made.fits is False else 0)


def _gpu(name: str, device: int) -> Gpu | None:
    """The GPU to plan for; None where it is this machine's and there is none."""
    from memacct.planning.gpus import live_gpu, named_gpu

    if name.strip().lower() != "free":
        return named_gpu(name)
    from memacct._core import snapshot

    devices = snapshot(devices="all").devices
    return live_gpu(devices, device) if devices else None
