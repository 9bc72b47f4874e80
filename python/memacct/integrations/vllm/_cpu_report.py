"""What memacct says about one CPU worker's start: both numbers, in the log and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memacct._units import format_bytes
from memacct.report.text import gib, render_table

if TYPE_CHECKING:
    from memacct._core import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class CPUReport:
    """The budget of one CPU worker. ``available_bytes`` is the node's, reclaimable counted."""

    rank: int
    requested_bytes: int
    rss_bytes: int
    held_bytes: int
    available_bytes: int | None
    margin_bytes: int
    snapshot: Snapshot

    @property
    def wanted_bytes(self) -> int:
        """What was requested less what the worker holds."""
        return self.requested_bytes - self.held_bytes

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

    def shortfall_story(self) -> str:
        """Says what does not fit into what."""
        return (
            f"the wanted budget of {format_bytes(self.wanted_bytes)} does not fit into the "
            f"{format_bytes(self.available_bytes or 0)} that are available on the node and within "
            f"the control group (margin {format_bytes(self.margin_bytes)})"
        )

    def text(self, budget_bytes: int) -> str:
        """Returns the log message: both numbers in a sentence, then where they come from."""
        stock = self.requested_bytes - self.rss_bytes
        head = (
            f"memacct: KV cache budget {format_bytes(budget_bytes)} (requested "
            f"{format_bytes(self.requested_bytes)}, held {format_bytes(self.held_bytes)}). "
            f"vLLM's own reading would have given {format_bytes(stock)}: it subtracts the RSS of "
            f"{format_bytes(self.rss_bytes)}, of which "
            f"{format_bytes(max(0, self.rss_bytes - self.held_bytes))} is page cache that the "
            "kernel can take back."
        )
        rows = [(name, gib(value), source) for name, value, source in self._rows()]
        return head + "\n" + render_table(("GiB", "now", "from"), rows)

    def _rows(self) -> list[tuple[str, int | None, str]]:
        host = self.snapshot.host
        cgroup, system = self.snapshot.cgroup, self.snapshot.system
        return [
            ("anonymous", host.rss_anon_bytes, "/proc/self/status RssAnon"),
            ("shared memory", host.rss_shmem_bytes, "/proc/self/status RssShmem"),
            ("huge pages", host.hugetlb_bytes, "/proc/self/status HugetlbPages"),
            ("held", self.held_bytes, "the above and dirty file pages (smaps_rollup)"),
            ("file", host.rss_file_bytes, "/proc/self/status RssFile"),
            ("RSS", self.rss_bytes, "what vLLM subtracts"),
            ("group limit", cgroup.limit_bytes if cgroup else None, "control group"),
            ("group usage", cgroup.usage_bytes if cgroup else None, "control group, with cache"),
            ("available", self.available_bytes, "node and group, with what can be reclaimed"),
            ("machine available", system.available_bytes if system else None, "/proc/meminfo"),
        ]

    def as_dict(self, budget_bytes: int) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "profiler": "native",
            "device": "cpu",
            "rank": self.rank,
            "requested_bytes": self.requested_bytes,
            "rss_bytes": self.rss_bytes,
            "held_bytes": self.held_bytes,
            "available_bytes": self.available_bytes,
            "stock_bytes": self.requested_bytes - self.rss_bytes,
            "native_bytes": self.wanted_bytes,
            "final_bytes": budget_bytes,
            "clamped": self.shortfall_bytes > 0,
            "snapshot": self.snapshot.to_dict(),
        }
