"""``memacct metrics``: memory as Prometheus scrapes it."""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from memacct.exporter import Reader

_MOST_PORT = 65535


def metrics(  # noqa: PLR0917 (the command line's options)
    port: Annotated[
        int, typer.Option(min=0, max=_MOST_PORT, help="Where it listens; 0: any that is free.")
    ] = 9478,
    host: Annotated[
        str, typer.Option(help="The address it listens on; default this machine alone.")
    ] = "127.0.0.1",
    pid: Annotated[
        list[int] | None,
        typer.Option("--pid", help="A process that is to count as own; may be given again."),
    ] = None,
    tree: Annotated[
        bool, typer.Option("--tree", help="With the descendants of those, as tree.")
    ] = False,
    max_processes: Annotated[
        int, typer.Option(min=1, help="Rows of processes a GPU; the rest is summed up.")
    ] = 64,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics once, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print them once as JSON, and end.")
    ] = False,
) -> None:
    """Tell Prometheus whose memory it is, at /metrics, until it is ended. See docs/metrics.md."""
    from memacct.exporter import Exporter, Reader, render

    reader = Reader(pid or (), tree=tree, most_processes_count=max_processes)
    if as_json:
        _print_json(reader, max_processes)
        return
    if once:
        print(render(reader, max_processes)[0].decode(), end="")
        return
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Exporter(reader, host=host, port=port, most_processes_count=max_processes) as exporter:
        print(f"memacct metrics: {exporter.url}", file=sys.stderr, flush=True)
        stop.wait()


def _print_json(reader: Reader, max_processes: int) -> None:
    from memacct.report.prometheus import SCHEMA_VERSION, metric_families
    from memacct.report.prometheus_types import plain

    families = metric_families(reader.read(), most_processes_count=max_processes)
    data = {"schema_version": SCHEMA_VERSION, "kind": "metrics", "families": plain(families)}
    print(json.dumps(data, allow_nan=False))
