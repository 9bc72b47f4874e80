"""Answers Prometheus' scrapes over HTTP: /metrics and /healthz, nothing else."""

from __future__ import annotations

import errno
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memacct._errors import ConfigError, MemacctError
from memacct.report.prometheus import metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.exporter.reader import Reader

_TEXT = "text/plain; charset=utf-8"
_SLOWEST_CLIENT_S = 10.0


class Collector:
    """What prometheus_client asks at each scrape: one reading, as its families."""

    def __init__(self, reader: Reader, most_processes_count: int) -> None:
        self._reader = reader
        self._most_count = most_processes_count

    def describe(self) -> list[Any]:
        """Returns nothing, so that registering reads nothing."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yields the families of a new reading."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kinds = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
        families = metric_families(self._reader.read(), most_processes_count=self._most_count)
        for family in families:
            metric = kinds[family.kind](family.name, family.text, labels=family.labels)
            for labels, value in family.samples:
                metric.add_metric(labels, value)
            yield metric


def render(reader: Reader, most_processes_count: int = 64, accept: str = "") -> tuple[bytes, str]:
    """Returns one scrape's answer and its content type.

    Args:
        reader: what reads.
        most_processes_count: rows of processes; those that hold less are summed up.
        accept: the request's header; OpenMetrics is told where it is asked for.

    Raises:
        ConfigError: prometheus_client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder
    except ImportError as error:
        raise ConfigError(
            "the Python package prometheus_client is missing: pip install 'memacct[prometheus]'"
        ) from error

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(reader, most_processes_count))
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


class Exporter:
    """Serves until ``stop()``; a context manager, whose end closes the port.

    Args:
        reader: what reads.
        host: the address to listen on.
        port: the port; 0: any that is free.
        most_processes_count: rows of processes.

    Attributes:
        url: where the metrics are.

    Raises:
        ConfigError: the address or the port cannot be had, or prometheus_client is missing.
    """

    def __init__(
        self, reader: Reader, *, host: str = "127.0.0.1", port: int, most_processes_count: int = 64
    ) -> None:
        render(reader, most_processes_count)  # what cannot work is told now, not at a scrape

        def answer(accept: str) -> tuple[bytes, str]:
            return render(reader, most_processes_count, accept)

        self._server = _listen(host, port, answer)
        bound = self._server.server_address
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{bound[1]}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it, after what is being answered; not from its own threads."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _listen(host: str, port: int, answer: Any) -> ThreadingHTTPServer:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        kind = type("Server", (_Server,), {"address_family": family})
        server: ThreadingHTTPServer = kind((host, port), _handler(answer))
    except (OSError, OverflowError) as error:
        raise ConfigError(_refusal(host, port, error)) from None
    return server


def _refusal(host: str, port: int, error: BaseException) -> str:
    if isinstance(error, OverflowError):
        return f"port {port} is not one of 0 to 65535"
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"port {port} of {host} is taken: another program listens there"
    if code == errno.EACCES:
        return f"port {port} of {host}: permission denied (ports below 1024 are root's)"
    if isinstance(error, socket.gaierror) or code == errno.EADDRNOTAVAIL:
        return f"host={host!r} is not an address of this machine"
    return f"port {port} of {host}: {error}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a client that hangs does not hold up the end
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a client that went away is no fault of ours."""


def _handler(answer: Any) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "memacct", ""
        timeout = _SLOWEST_CLIENT_S

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/healthz":
                self._send(200, b"ok\n", _TEXT)
            elif path != "/metrics":
                self._send(404, b"there are /metrics and /healthz\n", _TEXT)
            else:
                self._metrics()

        do_HEAD = do_GET  # noqa: N815 (http.server's name)

        def _metrics(self) -> None:
            try:
                body, kind = answer(self.headers.get("Accept", ""))
            except MemacctError as error:
                self._send(503, f"{error}\n".encode(), _TEXT)
            else:
                self._send(200, body, kind)

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing: Prometheus asks for ever."""

    return Handler
