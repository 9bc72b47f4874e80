"""The starts that are tried: a model, an engine's options, a machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Case:
    """One start.

    Attributes:
        group: the table's section.
        model: a folder of `models`.
        title: what is tried of it, for people.
        options: as after ``vllm serve MODEL``; ``{NAME}`` is the folder of that model.
        layers_count: None: the whole model.
        gpu: the card.
        count: GPUs.
        files: further files of the model's folder, by name.
        drafts: models that the options name, with their layers.
    """

    group: str
    model: str
    title: str = ""
    options: tuple[str, ...] = ()
    layers_count: int | None = 4
    gpu: str = "h100"
    count: int = 1
    environ: tuple[tuple[str, str], ...] = ()
    drafts: tuple[tuple[str, int | None], ...] = ()

    @property
    def key(self) -> str:
        """Unique, and stable from one run to the next."""
        what = [self.model, *self.options, *(f"{name}={value}" for name, value in self.environ)]
        layers = f"{self.layers_count} layers" if self.layers_count else "whole"
        return " ".join([*what, f"({layers}, {self.count} x {self.gpu})"])


EAGER = ("--enforce-eager",)
LENGTH = ("--max-model-len", "4096")


def _each(group: str, *models: str, **more: object) -> list[Case]:
    options = (*EAGER, *LENGTH)
    return [
        Case(group=group, model=model, **{"options": options, **more})  # type: ignore[arg-type]
        for model in models
    ]


def _mode(title: str, *options: str, model: str = "Llama-3.1-8B-Instruct", **more: object) -> Case:
    given = (*EAGER, *LENGTH, *options)
    return Case(group="modes", model=model, title=title, options=given, **more)  # type: ignore[arg-type]


TEXT = _each("text", "opt-125m", "gpt2", options=EAGER) + _each(
    "text",
    "Llama-3.1-8B-Instruct",
    "Llama-3.1-70B-Instruct",
    "Llama-3.2-1B-Instruct",
    "Mistral-7B-Instruct-v0.3",
    "Mistral-7B-v0.1",
    "Qwen2-7B-Instruct",
    "Qwen2.5-0.5B-Instruct",
    "Qwen2.5-7B-Instruct",
    "Qwen3-0.6B",
    "Qwen3-8B",
    "Qwen3-32B",
    "gemma-2-9b-it",
    "gemma-3-1b-it",
    "phi-4",
    "GLM-4-9B-0414",
)
EXPERTS = _each(
    "experts", "Mixtral-8x7B-Instruct-v0.1", "Qwen3-30B-A3B", "GLM-4.5-Air", "gpt-oss-20b"
)
LATENT = _each("latent attention", "DeepSeek-V2-Lite-Chat", "DeepSeek-V3")
HYBRID = [
    *_each("hybrid and state space", "mamba-130m-hf", "Falcon-H1-0.5B-Instruct", "Bamba-9B"),
    *_each("hybrid and state space", "Nemotron-H-8B-Base-8K", layers_count=10),
    *_each("hybrid and state space", "Qwen3-Next-80B-A3B-Instruct", layers_count=4),
]
SEVERAL = [
    *_each(
        "images and sound",
        "Qwen2-VL-2B-Instruct",
        "Qwen2.5-VL-7B-Instruct",
        "Qwen3-VL-4B-Instruct",
        "Qwen3.5-9B",
        "gemma-3-4b-it",
        "gemma-3-27b-it",
        "llava-1.5-7b-hf",
        "llava-v1.6-mistral-7b-hf",
        "pixtral-12b",
        "InternVL3-1B-hf",
        "Llama-4-Scout-17B-16E-Instruct",
        "Qwen2-Audio-7B-Instruct",
    ),
    *_each("images and sound", "whisper-large-v3", options=EAGER),
]
POOLING = [
    *_each("pooling", "bge-base-en-v1.5", options=EAGER),
    *_each("pooling", "Qwen3-Embedding-0.6B", options=(*EAGER, *LENGTH, "--runner", "pooling")),
]
QUANTISED = [
    *_each(
        "quantised",
        "Qwen2.5-7B-Instruct-AWQ",
        "Qwen2.5-7B-Instruct-GPTQ-Int4",
        "Qwen3-8B-FP8",
        "Qwen3-30B-A3B-FP8",
        "Meta-Llama-3.1-8B-Instruct-FP8-dynamic",
        "Meta-Llama-3.1-8B-Instruct-quantized.w4a16",
        "Llama-3.1-8B-Instruct-NVFP4",
    ),
    *_each(
        "quantised",
        "Llama-3.1-8B-Instruct",
        title="online FP8",
        options=(*EAGER, *LENGTH, "--quantization", "fp8"),
    ),
    *_each(
        "quantised",
        "Llama-3.1-8B-Instruct-NVFP4",
        title="on a B200",
        gpu="b200",
    ),
]
MODES = [
    _mode("FP8 KV cache", "--kv-cache-dtype", "fp8"),
    _mode("prefix caching off", "--no-enable-prefix-caching"),
    _mode("block size 128", "--block-size", "128"),
    _mode("chunked prefill off", "--no-enable-chunked-prefill"),
    _mode("sleep mode", "--enable-sleep-mode"),
    _mode("weights offloaded to the host", "--cpu-offload-gb", "1"),
    _mode("LoRA", "--enable-lora", "--max-loras", "2", "--max-lora-rank", "16"),
    _mode("LoRA on experts", "--enable-lora", "--max-lora-rank", "16", model="Qwen3-30B-A3B"),
    _mode(
        "speculation: n-grams",
        "--speculative-config",
        '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}',
    ),
    _mode(
        "speculation: EAGLE-3",
        "--speculative-config",
        '{"method": "eagle3", "model": "{EAGLE3-LLaMA3.1-Instruct-8B}",'
        ' "num_speculative_tokens": 3}',
        drafts=(("EAGLE3-LLaMA3.1-Instruct-8B", None),),
        layers_count=8,
    ),
    _mode(
        "speculation: a draft model",
        "--speculative-config",
        '{"method": "draft_model", "model": "{Llama-3.2-1B-Instruct}",'
        ' "num_speculative_tokens": 3}',
        drafts=(("Llama-3.2-1B-Instruct", 2),),
    ),
    _mode(
        "speculation: the model's own (MTP)",
        "--speculative-config",
        '{"method": "mtp", "num_speculative_tokens": 1}',
        model="GLM-4.5-Air",
    ),
    _mode(
        "speculation: the model's own (MTP)",
        "--speculative-config",
        '{"method": "mtp", "num_speculative_tokens": 1}',
        model="DeepSeek-V3",
    ),
    _mode("tensor parallel 2", "--tensor-parallel-size", "2", count=2),
    _mode("pipeline parallel 2", "--pipeline-parallel-size", "2", count=2),
    _mode("data parallel 2", "--data-parallel-size", "2", count=2),
    _mode(
        "expert parallel",
        "--tensor-parallel-size",
        "2",
        "--enable-expert-parallel",
        model="Qwen3-30B-A3B",
        count=2,
    ),
    _mode(
        "data and expert parallel",
        "--data-parallel-size",
        "2",
        "--enable-expert-parallel",
        model="Qwen3-30B-A3B",
        count=2,
    ),
    _mode(
        "expert parallel, experts balanced",
        "--tensor-parallel-size",
        "2",
        "--enable-expert-parallel",
        "--enable-eplb",
        model="Qwen3-30B-A3B",
        count=2,
    ),
    _mode(
        "context parallel in decoding",
        "--tensor-parallel-size",
        "2",
        "--decode-context-parallel-size",
        "2",
        model="DeepSeek-V2-Lite-Chat",
        count=2,
    ),
    _mode("MLA with an FP8 cache", "--kv-cache-dtype", "fp8", model="DeepSeek-V2-Lite-Chat"),
    _mode("images off", "--limit-mm-per-prompt", '{"image": 0}', model="gemma-3-4b-it"),
    _mode("V1 model runner", environ=(("VLLM_USE_V2_MODEL_RUNNER", "0"),)),
    _mode("no async scheduling", "--no-async-scheduling"),
]
COMPILED = [
    Case(group="compiled, with CUDA graphs", model=model, options=LENGTH, layers_count=layers)
    for model, layers in (
        ("Llama-3.1-8B-Instruct", 4),
        ("Qwen3-30B-A3B", 4),
        ("DeepSeek-V2-Lite-Chat", 4),
        ("gpt-oss-20b", 4),
        ("gemma-3-1b-it", 6),
        ("Nemotron-H-8B-Base-8K", 10),
        ("Qwen2.5-VL-7B-Instruct", 4),
        ("Falcon-H1-0.5B-Instruct", 4),
    )
] + [
    Case(group="compiled, with CUDA graphs", model=model, options=LENGTH, gpu=gpu)
    for model, gpu in (
        ("Llama-3.1-8B-Instruct", "b200"),
        ("Qwen2.5-7B-Instruct", "rtx5090"),
        ("Qwen3-8B", "rtxpro6000"),
    )
]
CASES = (
    *TEXT,
    *EXPERTS,
    *LATENT,
    *HYBRID,
    *SEVERAL,
    *POOLING,
    *QUANTISED,
    *MODES,
    *COMPILED,
)
