"""What memacct says about one CPU worker's start: both numbers, in the log and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memacct._convert import to_dict
from memacct._units import format_bytes
from memacct.report.text import gib, render_table

if TYPE_CHECKING:
    from memacct._core import Snapshot
    from memacct.integrations.vllm._cpu_available import Available


@dataclass(frozen=True, slots=True, kw_only=True)
class CPUReport:
    """The budget of one CPU worker.

    Attributes:
        margin_bytes: left out of the budget for what the engine takes while it serves: vLLM
            measures no activations on a CPU, and its slack is the reclaimable pages it counts.
        available: of the node and the control group; None: this vLLM does not ask.
        waited_s: how long the start waited for more of it.
        fixed_bytes: the number that this vLLM takes whatever the worker holds; None: it asks.
    """

    rank: int
    requested_bytes: int
    rss_bytes: int
    held_bytes: int
    margin_bytes: int
    snapshot: Snapshot
    available: Available | None = None
    waited_s: float = 0.0
    fixed_bytes: int | None = None

    def given(self, available: Available, *, waited_s: float = 0.0) -> CPUReport:
        """Returns the same report with that much available."""
        return replace(self, available=available, waited_s=waited_s)

    @property
    def wanted_bytes(self) -> int:
        """What was requested less what the worker holds and will take besides."""
        return self.requested_bytes - self.held_bytes - self.margin_bytes

    @property
    def available_bytes(self) -> int | None:
        """What the node and the group both still have, reclaimable cache counted."""
        return None if self.available is None else self.available.usable_bytes

    @property
    def shortfall_bytes(self) -> int:
        """By how much the wanted budget exceeds what the node and the group still have."""
        if self.available_bytes is None:
            return 0
        return max(0, self.wanted_bytes - self.available_bytes)

    @property
    def budget_bytes(self) -> int:
        """The wanted budget, or what is left of the available memory where it is less."""
        if self.shortfall_bytes == 0 or self.available_bytes is None:
            return self.wanted_bytes
        return max(0, self.available_bytes - self.margin_bytes)

    @property
    def stock_bytes(self) -> int | None:
        """The budget by vLLM's own reading; None where vLLM would have ended the start."""
        if self.fixed_bytes is not None:
            return self.fixed_bytes
        budget = self.requested_bytes - self.rss_bytes
        too_much = self.available is not None and budget > self.available.stock_bytes
        return None if budget <= 0 or too_much else budget

    def shortfall_story(self) -> str:
        """Says what does not fit into what."""
        return (
            f"the wanted budget of {format_bytes(self.wanted_bytes)} does not fit into the "
            f"{format_bytes(self.available_bytes or 0)} that are available on the node and within "
            f"the control group (margin {format_bytes(self.margin_bytes)})"
        )

    def text(self, budget_bytes: int) -> str:
        """Returns the log message: both numbers in a sentence, then where they come from."""
        head = (
            f"memacct: KV cache budget {format_bytes(budget_bytes)} (requested "
            f"{format_bytes(self.requested_bytes)}, held {format_bytes(self.held_bytes)}, margin "
            f"{format_bytes(self.margin_bytes)}). {self._stock_sentence()}"
        )
        rows = [(name, gib(value), source) for name, value, source in self._rows()]
        return head + "\n" + render_table(("GiB", "now", "from"), rows)

    def _stock_sentence(self) -> str:
        if self.fixed_bytes is not None:
            return (
                f"This vLLM would have taken {format_bytes(self.fixed_bytes)}, "
                "whatever the worker holds."
            )
        return (
            f"vLLM's own reading would have {self._stock_story()}: it subtracts the RSS of "
            f"{format_bytes(self.rss_bytes)}, of which "
            f"{format_bytes(self.snapshot.host.reclaimable_bytes or 0)} is page cache that the "
            "kernel can take back."
        )

    def _stock_story(self) -> str:
        if self.stock_bytes is not None:
            return f"given {format_bytes(self.stock_bytes)}"
        story = "ended the start"
        if self.available is not None:
            story += f" with {format_bytes(self.available.stock_bytes)} available"
        return story

    def _rows(self) -> list[tuple[str, int | None, str]]:
        host = self.snapshot.host
        cgroup, system = self.snapshot.cgroup, self.snapshot.system
        return [
            ("anonymous", host.rss_anon_bytes, "/proc/self/status RssAnon"),
            ("shared memory", host.rss_shmem_bytes, "/proc/self/status RssShmem"),
            ("huge pages", host.hugetlb_bytes, "/proc/self/status HugetlbPages"),
            ("held", self.held_bytes, self._held_source()),
            ("file", host.rss_file_bytes, "/proc/self/status RssFile"),
            ("RSS", self.rss_bytes, "what vLLM subtracts"),
            ("group limit", cgroup.limit_bytes if cgroup else None, "control group"),
            ("group usage", cgroup.usage_bytes if cgroup else None, "control group, with cache"),
            ("available", self.available_bytes, "node and group, with what can be reclaimed"),
            ("machine available", system.available_bytes if system else None, "/proc/meminfo"),
        ]

    def _held_source(self) -> str:
        if self.snapshot.mappings is None:
            return "the above"
        return "the above without lazily freed pages, with dirty and locked file pages (smaps)"

    def as_dict(self, budget_bytes: int) -> dict[str, Any]:
        """Returns plain data for JSON."""
        mappings = self.snapshot.mappings
        kinds = {} if mappings is None else mappings.by_kind()
        return {
            "profiler": "native",
            "device": "cpu",
            "rank": self.rank,
            "requested_bytes": self.requested_bytes,
            "rss_bytes": self.rss_bytes,
            "held_bytes": self.held_bytes,
            "margin_bytes": self.margin_bytes,
            "available_bytes": self.available_bytes,
            "stock_bytes": self.stock_bytes,
            "native_bytes": self.wanted_bytes,
            "final_bytes": budget_bytes,
            "clamped": self.shortfall_bytes > 0,
            "waited_s": self.waited_s,
            "held_by_kind": {name: totals.held_bytes for name, totals in kinds.items()},
            # Without the mappings themselves: a thousand rows, of which the sums are above.
            "snapshot": to_dict(self.snapshot, without=("mappings",)),
        }
