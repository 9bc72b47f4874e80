"""An answer: figures, what was assumed and found, and what could not be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What a question found out.

    Attributes:
        text: the answer in a sentence.
        figures: the numbers, by name; sizes in bytes unless a name says otherwise.
        checks: each assumption, with what was found and whether it holds (None: a finding
            on which nothing was assumed).
        not_asked: what could not be asked, and why.
    """

    text: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)

    def check(self, expected: str, agrees: bool | None, found: Any) -> None:
        """Notes an assumption, and whether it holds."""
        self.checks.append({"expected": expected, "agrees": agrees, "found": found})

    def skip(self, what: str, why: str) -> None:
        """Notes what could not be asked, and why."""
        self.not_asked.append(f"{what}: {why}")

    def to_dict(self) -> dict[str, Any]:
        judged = [check["agrees"] for check in self.checks if check["agrees"] is not None]
        status = "partly" if self.not_asked else "answered"
        return {
            "status": status if self.checks or self.figures else "not_asked",
            "answer": self.text,
            "agrees": all(judged) if judged else None,
            "checks": self.checks,
            "figures": self.figures,
            "not_asked": self.not_asked,
        }


def spread(values: list[float], unit: str, digits: int = 2) -> dict[str, float]:
    """Returns the distribution of values, each key with its unit."""
    ordered = sorted(values)
    last = len(ordered) - 1
    points = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found = {key: ordered[round(last * part)] for key, part in points.items()}
    return {f"{key}_{unit}": round(value, digits) for key, value in found.items()}


def change(after: int | None, before: int | None) -> int | None:
    """Returns a difference; unknown if either is."""
    return None if after is None or before is None else after - before
