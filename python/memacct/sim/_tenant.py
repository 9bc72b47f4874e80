"""A neighbour on a simulated GPU: a real process that holds, allocates and frees."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

from memacct._errors import MemacctError
from memacct._units import parse_bytes
from memacct.sim._libraries import CONTROL, library_directory

_ANSWER_TIMEOUT_S = 30.0
_LONGEST_WAIT_S = 3600.0  # select takes no infinity


class TenantError(MemacctError):
    """A tenant could not do what was asked of it: out of memory, or it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantAction:
    """What a tenant did, after the device's account had changed.

    Attributes:
        action: "start", "allocate", "free" or "when".
        at_ns: CLOCK_MONOTONIC.
        bytes: by how much its use changed.
        held_bytes: what it holds now, its context not counted.
        device_free_bytes: what was free on the device then.
        error: "" or why it could not ("out of memory").
        condition: number of the condition that it acted on; None: a command.
    """

    action: str
    at_ns: int
    bytes: int
    held_bytes: int
    device_free_bytes: int
    error: str
    condition: int | None


class Tenant:
    """A running neighbour. Made by ``SimulatedGpu.tenant``; ends with its ``with`` block.

    ``actions`` lists what it did on conditions, as far as it has been read.
    """

    def __init__(self, environ: Mapping[str, str], device: int = 0) -> None:
        self.device = device
        self.actions: list[TenantAction] = []
        self._conditions_count = 0
        self._input = b""
        self._process = subprocess.Popen(
            [str(library_directory() / CONTROL), "tenant", str(device)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environ),
            bufsize=0,
        )
        try:
            self.held_bytes = 0
            self._answer("start")
        except TenantError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its pid."""
        return self._process.pid

    def allocate(self, size: int | str) -> TenantAction:
        """Takes device memory; when this returns the device's account has changed.

        Args:
            size: bytes or text such as "3GiB"; counted in whole pages of 2 MiB.

        Raises:
            TenantError: the device has not that much free.
        """
        return self._command("allocate", str(parse_bytes(size)))

    def free(self, size: int | str | None = None) -> TenantAction:
        """Gives memory back: all of it, or `size` at one instant."""
        return self._command("free", "all" if size is None else str(parse_bytes(size)))

    def when(
        self,
        *,
        then: str,
        other_process_bytes: int | str | None = None,
        pid: int | None = None,
        launches: int | None = None,
        cuda_memory_queries: int | None = None,
        nvml_memory_queries: int | None = None,
        nvml_process_queries: int | None = None,
        graph_captures: int | None = None,
        graph_instantiations: int | None = None,
        file_exists: str | os.PathLike[str] | None = None,
    ) -> int:
        """Lets it act once, as soon as all that is given holds; returns the condition's number.

        Args:
            then: "free", "free:2GiB" or "allocate:3GiB".
            other_process_bytes: another process holds at least that much of this device.
            pid: only this process counts; default any other.
            launches: it has launched at least so many kernels.
            cuda_memory_queries: it has called cu(da)MemGetInfo at least so often.
            nvml_memory_queries: it has asked NVML for a device's memory so often.
            nvml_process_queries: it has asked NVML for a device's processes so often.
            graph_captures: it has begun to capture so many CUDA graphs.
            graph_instantiations: it has instantiated so many CUDA graphs.
            file_exists: a file that marks the moment.
        """
        action, _, amount = then.partition(":")
        if action not in ("free", "allocate") or (action == "allocate" and not amount):
            raise ValueError(f"then={then!r} is not 'free', 'free:SIZE' or 'allocate:SIZE'")
        conditions = {
            "bytes": None if other_process_bytes is None else parse_bytes(other_process_bytes),
            "pid": pid,
            "launches": launches,
            "cuda_memory_queries": cuda_memory_queries,
            "nvml_memory_queries": nvml_memory_queries,
            "nvml_process_queries": nvml_process_queries,
            "graph_captures": graph_captures,
            "graph_instantiations": graph_instantiations,
            "file": None if file_exists is None else os.fspath(file_exists),
        }
        given = [f"{key}={value}" for key, value in conditions.items() if value is not None]
        if not given:
            raise ValueError("when() needs at least one condition")
        self._conditions_count += 1
        extra = [f"amount={parse_bytes(amount)}"] if amount else []
        self._command("when", str(self._conditions_count), *given, f"then={action}", *extra)
        return self._conditions_count

    def wait_action(self, condition: int, timeout_s: float = 60.0) -> TenantAction:
        """Waits until it has acted on a condition.

        Raises:
            TenantError: not within `timeout_s`, or it has ended.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for action in self.actions:
                if action.condition == condition:
                    return action
            self._keep(self._read_line(deadline, f"condition {condition} has not come true"))

    def poll_actions(self) -> list[TenantAction]:
        """Returns all that it did on conditions so far, without waiting."""
        with contextlib.suppress(TenantError):
            while True:
                self._keep(self._read_line(time.monotonic(), ""))
        return self.actions

    def kill(self) -> None:
        """Ends it as SIGKILL does: it can give nothing back by itself."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends it; its memory is free when this returns."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=_ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _command(self, *fields: str) -> TenantAction:
        assert self._process.stdin is not None  # noqa: S101 (a pipe was asked for)
        try:
            self._process.stdin.write("\t".join(fields).encode() + b"\n")
        except (BrokenPipeError, ValueError) as error:
            raise TenantError(f"the tenant {self.pid} has ended") from error
        return self._answer(" ".join(fields))

    def _answer(self, asked: str) -> TenantAction:
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while True:
            row = self._read_line(deadline, f"no answer to {asked!r}")
            action = self._keep(row)
            if action is None:
                continue
            if action.error:
                raise TenantError(f"tenant {self.pid}: {asked}: {action.error}")
            return action

    def _keep(self, row: dict[str, Any]) -> TenantAction | None:
        """Notes what a line tells; returns the action if it answers a command."""
        action = TenantAction(
            action=row["action"],
            at_ns=row.get("at_ns", 0),
            bytes=row.get("bytes", 0),
            held_bytes=row.get("held_bytes", 0),
            device_free_bytes=row.get("device_free_bytes", 0),
            error=row["error"],
            condition=row.get("event"),
        )
        self.held_bytes = action.held_bytes
        if action.condition is None:
            return action
        self.actions.append(action)
        return None

    def _read_line(self, deadline: float, late: str) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 (a pipe was asked for)
        while b"\n" not in self._input:
            left_s = min(max(0.0, deadline - time.monotonic()), _LONGEST_WAIT_S)
            ready = select.select([self._process.stdout], [], [], left_s)[0]
            if not ready and time.monotonic() < deadline:
                continue
            if not ready:
                raise TenantError(f"tenant {self.pid}: {late}")
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                raise TenantError(f"the tenant {self.pid} has ended")
            self._input += chunk
        line, _, self._input = self._input.partition(b"\n")
        row: dict[str, Any] = json.loads(line)
        return row


def control_path() -> Path:
    """Returns the program that tenants run."""
    return library_directory() / CONTROL
