"""What to install for one vLLM version: its own declared dependencies, a little leaner.

No list is kept per version. The wheel's metadata names what it needs; left out are kernels for
GPUs that are not there, and bounds are added where a package's later major version broke what
was published before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .versions import Target

# GPU kernels and media codecs that a text model does without, by their normalised names. All of
# them are imported where they are used, or behind a test whether they are there.
LEFT_OUT = frozenset(
    {
        "fastsafetensors",
        "flashinfer-cubin",
        "flashinfer-python",
        "humming-kernels",
        "instanttensor",
        "intel-extension-for-pytorch",
        "nvidia-cudnn-frontend",
        "nvidia-cutlass-dsl",
        "pynvvideocodec",
        "quack-kernels",
        "ray",
        "tilelang",
        "tokenspeed-mla",
        "torchaudio",
        "torchcodec",
        "xformers",
    }
)
# Its lower bound follows the newest release by days; what comes with requests does.
LEFT_OUT_BOUNDS = frozenset({"certifi"})
# torchvision's wheels on the index are built with CUDA; a text model needs none.
LEFT_OUT_ON_CPU = frozenset({"torchvision", "triton"})

# (first version that no longer needs them, upper bounds)
BOUNDS: tuple[tuple[tuple[int, ...], tuple[str, ...]], ...] = (
    (
        (0, 13),
        (
            "fastapi<0.120",
            "gguf<0.18",
            "huggingface-hub<1",
            "mistral-common<1.9",
            "openai<2.4",
            "opencv-python-headless<4.13",
            "prometheus-fastapi-instrumentator<8",
        ),
    ),
    (
        (0, 20),
        (
            "anthropic<1",
            "fastapi<0.137",
            "gguf<0.19",
            "mcp<2",
            "openai<2.25",
            "openai-harmony<0.0.9",
            "opencv-python-headless<5",
            "protobuf<7",
            "pydantic<2.13",
            "setuptools<81",
            "transformers<5",
        ),
    ),
    ((0, 33), ("protobuf<7", "setuptools<81", "transformers<5.20")),
)
_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_EXTRA = re.compile(r";.*\bextra\s*==")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What goes into an environment beside vLLM itself.

    Attributes:
        requirements: its declared dependencies, with their markers, less those left out.
        constraints: upper bounds for what other packages ask for.
        left_out: names, for people.
    """

    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    left_out: tuple[str, ...]


def name_of(requirement: str) -> str:
    """The normalised name in a requirement; empty where there is none."""
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found[1]).lower() if found else ""


def make_recipe(declared: Iterable[str], target: Target) -> Recipe:
    """The recipe for ``target``, whose wheel's metadata says ``declared`` (Requires-Dist)."""
    names_left_out = LEFT_OUT | LEFT_OUT_BOUNDS | (LEFT_OUT_ON_CPU if target.is_cpu else set())
    requirements: list[str] = []
    left_out: set[str] = set()
    for requirement in declared:
        if _EXTRA.search(requirement):
            continue
        name = name_of(requirement)
        if name in names_left_out:
            left_out.add(name)
        elif requirement not in requirements:
            requirements.append(requirement)
    return Recipe(
        requirements=tuple(requirements),
        constraints=bounds(target.number),
        left_out=tuple(sorted(left_out)),
    )


def bounds(number: tuple[int, ...]) -> tuple[str, ...]:
    """The upper bounds of a version: of each package the first, which is the tightest."""
    chosen: dict[str, str] = {}
    for first_without, packages in BOUNDS:
        if number < first_without:
            for package in packages:
                chosen.setdefault(name_of(package), package)
    return tuple(chosen.values())


def torch_of(requirements: Iterable[str]) -> str | None:
    """The torch version that is pinned, without a local part: ``2.8.0``; None where none is."""
    for requirement in requirements:
        found = re.match(r"\s*torch\s*==\s*([0-9.]+)", requirement)
        if found:
            return found[1]
    return None


def header_packages(runtime: str) -> tuple[str, ...]:
    """The header packages for the simulated GPU's runtime.

    Args:
        runtime: version of the CUDA runtime's package that torch brought: ``12.8.90``.
    """
    major, minor = runtime.split(".")[:2]
    release = f"{major}.{minor}.*"
    if int(major) < 13:  # (since CUDA 13 the names have no suffix)
        return (f"nvidia-cuda-nvcc-cu{major}=={release}", f"nvidia-cuda-cccl-cu{major}=={release}")
    return (f"nvidia-cuda-crt=={release}", f"nvidia-cuda-cccl=={release}")
