"""The engine's processes: started, watched until they have an answer or a limit, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .host import Sampler
from .toolkit import make_toolkit

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from .host import HostSample

LOG = "engine.log"
ENGINE_SIDE = Path(__file__).parent / "engine_side"
# Between two readings of host memory; a process that ends is seen at once.
_POLL_S = 0.25
_PLUGIN = """[vllm.general_plugins]
memacct_dryrun = memacct_dryrun_hooks:register
"""
_METADATA = "Metadata-Version: 2.1\nName: memacct-dryrun\nVersion: 0\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an engine's processes ended.

    Attributes:
        files: what they left, by name ("main", "worker-0", "core-0").
        log_path: of what they printed.
        timed_out: they were ended at the limit.
        exit_status: of the first process; negative: by that signal.
        samples: what they held of the host's memory, at its times.
        begin_s: when they were started, by time.monotonic(), which is theirs too.
        wall_s: from then until their end.
    """

    files: Mapping[str, Mapping[str, Any]]
    log_path: Path
    timed_out: bool
    exit_status: int | None
    samples: tuple[HostSample, ...]
    begin_s: float
    wall_s: float

    @property
    def main(self) -> Mapping[str, Any]:
        """The first process's file."""
        return self.files.get("main", {})

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """The files of all workers or cores, by their number."""
        return [
            self.files[name]
            for name in sorted(self.files, key=lambda name: (len(name), name))
            if name.startswith(f"{kind}-")
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProcess:
    """What is to be started.

    Attributes:
        python: the interpreter whose vLLM is run.
        line: the options of ``vllm serve``.
        environ: the whole environment.
        folder: for the request, the log and the files; exists.
        stop: set, by another thread, it ends the engine.
    """

    python: Path
    line: tuple[str, ...]
    environ: Mapping[str, str]
    folder: Path
    stop: threading.Event | None = None

    def run(self, limit_s: float) -> Outcome:
        """Starts the engine and waits until it has started, failed, or the limit is over.

        Leaving, by an exception too, ends all of its processes.

        Raises:
            CancelledError: `stop` was set.
        """
        request, log_path = self.folder / "request.json", self.folder / LOG
        request.write_text(json.dumps({"line": list(self.line)}))
        self._make_plugin()
        begin_s = time.monotonic()
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [str(self.python), str(ENGINE_SIDE / "memacct_dryrun.py"), str(request)],
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
            )
        sampler = Sampler(process.pid)
        try:
            timed_out = self._wait(process, sampler, begin_s + limit_s)
        finally:
            _end(process)
        return Outcome(
            files=self._files(),
            log_path=log_path.resolve(),
            timed_out=timed_out,
            exit_status=None if timed_out else process.returncode,
            samples=tuple(sampler.samples),
            begin_s=begin_s,
            wall_s=time.monotonic() - begin_s,
        )

    def _wait(self, process: subprocess.Popen[bytes], sampler: Sampler, until_s: float) -> bool:
        """Returns whether the limit came first."""
        while process.poll() is None:
            if self.stop is not None and self.stop.is_set():
                raise CancelledError
            if time.monotonic() > until_s:
                return True
            sampler.sample()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
        return False

    def _make_plugin(self) -> None:
        """A distribution that names the hooks as a plugin: vLLM finds it on PYTHONPATH."""
        where = self.folder / "plugin" / "memacct_dryrun-0.dist-info"
        where.mkdir(parents=True)
        (where / "METADATA").write_text(_METADATA)
        (where / "entry_points.txt").write_text(_PLUGIN)

    def _files(self) -> dict[str, Any]:
        found = self.folder.glob("[!.]*.json")
        return {path.stem: json.loads(path.read_text()) for path in found if path.stem != "request"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process group: the engine's workers are in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def engine_environ(
    base: Mapping[str, str], own: Mapping[str, str], folder: Path, status: Path
) -> dict[str, str]:
    """The environment of an engine's processes.

    Args:
        base: the simulated machine's, with this process's variables.
        own: the user's, before the command; they win.
        folder: of the run.
        status: the program that tells the machine's true state.
    """
    leftovers = ("MEMACCT_REPORT", "MEMACCT_TIMELINE", "MEMACCT_STAGE", "MEMACCT_VLLM", "VLLM_")
    environ = {name: value for name, value in base.items() if not name.startswith(leftovers)}
    environ |= {
        "PYTHONUNBUFFERED": "1",
        "MEMACCT_DRYRUN_FOLDER": str(folder),
        "MEMACCT_DRYRUN_STATUS": str(status),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_HOST_IP": "127.0.0.1",
        # Memory that processes map of each other is not simulated, and vLLM 0.11 takes that for an
        # error. Its buffer, 64 MiB a GPU, is in the figures that logs tell of NCCL.
        "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
        "VLLM_LOGGING_LEVEL": "INFO",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **make_toolkit(folder),
    }
    environ |= dict(own)
    places = [str(ENGINE_SIDE), str(folder / "plugin"), environ.get("PYTHONPATH")]
    environ["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
    if "VLLM_PLUGINS" in environ:  # a list of those that may be loaded
        environ["VLLM_PLUGINS"] += ",memacct_dryrun"
    return environ
