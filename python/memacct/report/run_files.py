"""Writes a recording in the formats that other tools read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct.report.run_perfetto import perfetto_trace
from memacct.report.run_tables import write_csv, write_parquet

if TYPE_CHECKING:
    from pathlib import Path

    from memacct.report.run_account import RunAccount
    from memacct.report.run_spans import Spans


def write_run(account: RunAccount, spans: Spans, kind: str, path: Path) -> int:
    """Writes a file of a recording; returns its size in bytes.

    Args:
        account: of the recording.
        spans: its timelines.
        kind: "html", "perfetto", "csv" or "parquet".
        path: the file; one that is there is replaced, but not the recording itself.

    Raises:
        ConfigError: the file is the recording, or what writes it is not installed.
        OSError: it cannot be written.
    """
    if path.exists() and path.samefile(account.run.source):
        raise ConfigError(f"{path} is the recording itself: name another file")
    if kind == "csv":
        write_csv(account.run, path)
    elif kind == "parquet":
        write_parquet(account.run, path)
    elif kind == "perfetto":
        path.write_bytes(perfetto_trace(account.run, account.host_totals, spans.spans))
    else:
        from memacct.report.run_html import run_page

        path.write_text(run_page(account, spans), encoding="utf-8", errors="backslashreplace")
    return path.stat().st_size
