"""``memacct broker``: tells containers' processes their numbers outside."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from memacct._errors import ConfigError
from memacct.broker import DEFAULT_SOCKET, INITIAL_PID_NAMESPACE, Broker


def broker(
    path: Annotated[
        Path, typer.Option("--socket", help="Where it listens; mount its folder into containers.")
    ] = DEFAULT_SOCKET,
) -> None:
    """Tell containers' processes their PIDs outside, until it is ended. See docs/attribution.md."""
    with Broker(path) as server:
        if server.pid_namespace != INITIAL_PID_NAMESPACE:
            raise ConfigError(
                f"pid namespace {server.pid_namespace} is not the machine's own, and nobody would "
                "believe a broker there; run it on the host, or with --pid=host"
            )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.stop())
        print(f"memacct broker listens at {path}", file=sys.stderr, flush=True)
        server.serve()
