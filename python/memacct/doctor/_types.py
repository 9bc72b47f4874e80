"""What a diagnosis consists of: findings, each with its reason and its remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, cast

#: From best to worst: as it should be; worth knowing; it will hurt some day; it does not work.
Level = Literal["ok", "note", "warning", "problem"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "problem")
Topic = Literal["driver", "gpus", "processes", "host", "kernel", "settings", "engine"]
TOPICS: tuple[Topic, ...] = (
    "gpus",
    "driver",
    "processes",
    "host",
    "kernel",
    "settings",
    "engine",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: the heading that it belongs under.
        key: its name for programs, such as "driver.nvml"; several findings may share one.
        level: how bad it is.
        what: what is so, with its numbers.
        why: why that matters; "" where it goes without saying.
        fix: what to do about it; "" where there is nothing to do.
        source: who says so, where that is not memacct's own reading.
    """

    topic: Topic
    key: str
    level: Level
    what: str
    why: str = ""
    fix: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings of one examination, in the order of their topics."""

    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Level:
        """The level of the worst finding."""
        return max((f.level for f in self.findings), key=LEVELS.index, default="ok")

    def of(self, key: str) -> tuple[Finding, ...]:
        """Returns the findings of that key."""
        return tuple(finding for finding in self.findings if finding.key == key)

    def counts(self) -> dict[Level, int]:
        """Returns how many findings there are of each level."""
        return {level: sum(f.level == level for f in self.findings) for level in LEVELS}

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return {
            "worst": self.worst,
            "counts": self.counts(),
            "findings": [asdict(finding) for finding in self.findings],
        }


def finding(
    level: Level, key: str, what: str, *, why: str = "", fix: str = "", source: str = ""
) -> Finding:
    """Returns a finding whose topic is the beginning of its key."""
    topic, _, _ = key.partition(".")
    return Finding(
        topic=cast("Topic", topic), key=key, level=level, what=what, why=why, fix=fix, source=source
    )


#: Each makes a finding of its level; the key begins with the topic.
ok = partial(finding, "ok")
note = partial(finding, "note")
warning = partial(finding, "warning")
problem = partial(finding, "problem")


def diagnosis_of(findings: list[Finding]) -> Diagnosis:
    """Returns the findings sorted by topic, each topic's worst first."""
    by_topic = sorted(findings, key=lambda f: (TOPICS.index(f.topic), -LEVELS.index(f.level)))
    return Diagnosis(findings=tuple(by_topic))
