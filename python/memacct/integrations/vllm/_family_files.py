"""The registry of one engine's processes: a private folder with a small file for each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct.integrations.vllm._family_processes import is_same_process, pid_namespace

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER_VARIABLE = "MEMACCT_ENGINE_DIR"
_PLAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One process of an engine, as it registered itself (or was registered by another).

    Attributes:
        pid: in its own pid namespace.
        started_ticks: against reuse of the number; None: not known.
        namespace: of its pid; None: not known, taken for ours.
        role: such as ``worker``, ``EngineCore`` or ``API server``.
        rank: a worker's.
        dp_rank: which data-parallel engine it belongs to; None: all of them.
        device_uuid: the device on which a worker has a budget of its own.
        driver_pid: the number by which the driver lists it, once it has found itself.
        belongs_to: the pid of the registered process that made it, for what it is charged to.
    """

    pid: int
    role: str
    started_ticks: int | None = None
    namespace: int | None = None
    rank: int | None = None
    dp_rank: int | None = None
    device_uuid: str | None = None
    driver_pid: int | None = None
    belongs_to: int | None = None

    @property
    def title(self) -> str:
        """For people."""
        return self.role if self.rank is None else f"{self.role} rank {self.rank}"

    @property
    def is_here(self) -> bool:
        """Whether its pid means something in this process's /proc."""
        return self.namespace is None or self.namespace == pid_namespace()


class Registry:
    """The files of one engine.

    Args:
        engine_id: names the engine; of the form of a file name, or else its hash is taken.
        environ: where ``MEMACCT_ENGINE_DIR`` is looked up.
    """

    def __init__(self, engine_id: str, environ: Mapping[str, str] = os.environ) -> None:
        self.engine_id = engine_id
        self.folder = engines_folder(environ) / _file_name(engine_id)
        # A folder that the user named may be open to others; what we make in it is not.
        self._checks_base = not environ.get(FOLDER_VARIABLE)

    def write(self, entry: Entry) -> None:
        """Puts an entry, in the place of an earlier one of the same process.

        Raises:
            OSError: the folder cannot be made or written, or is not this user's alone.
        """
        text = json.dumps(asdict(entry))
        try:
            self._put(entry, text)
        except FileNotFoundError:  # swept away by another engine before there was a file in it
            self._put(entry, text)

    def _put(self, entry: Entry, text: str) -> None:
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._checks_base:
            _check_private(self.folder.parent)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        _check_private(self.folder)
        path = self.folder / f"{entry.namespace or 0}-{entry.pid}.json"
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(text)
        part.replace(path)

    def entries(self) -> dict[tuple[int | None, int], Entry]:
        """Returns the entries of living processes by (namespace, pid); takes away dead ones'.

        Whether a process of another pid namespace lives cannot be told; it is taken to.

        Raises:
            OSError: the folder is not this user's alone.
        """
        found: dict[tuple[int | None, int], Entry] = {}
        if not self.folder.exists():
            return found
        _check_private(self.folder)
        for path in self.folder.glob("*.json"):
            entry = _read(path)
            if entry is None:
                continue
            if entry.is_here and not is_same_process(entry.pid, entry.started_ticks):
                # By now another process may have registered under the number.
                if _read(path) == entry:
                    path.unlink(missing_ok=True)
                continue
            found[entry.namespace, entry.pid] = entry
        return found


def engines_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of all engines' registries: one for each user."""
    given = environ.get(FOLDER_VARIABLE)
    return Path(given) if given else Path(tempfile.gettempdir()) / f"memacct-{os.geteuid()}"


def sweep(environ: Mapping[str, str] = os.environ) -> None:
    """Takes away what ended engines left: entries of dead processes, and empty folders."""
    base = engines_folder(environ)
    if not base.is_dir():
        return
    for folder in base.iterdir():
        registry = Registry(folder.name, environ)
        # Another's, or one that is just being made or taken away by somebody else.
        with contextlib.suppress(OSError):
            if folder.is_dir() and not registry.entries():
                folder.rmdir()


def _read(path: Path) -> Entry | None:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        return Entry(**{name: data[name] for name in Entry.__slots__ if name in data})
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # gone meanwhile, or no entry of ours


def _check_private(folder: Path) -> None:
    # A folder that another user made first, or may write into, could name any process ours.
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder that only this user can use (mode 0700)")


def _file_name(engine_id: str) -> str:
    if re.fullmatch(_PLAIN_NAME, engine_id):
        return engine_id
    return hashlib.sha256(os.fsencode(engine_id)).hexdigest()[:32]
