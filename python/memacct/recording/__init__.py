"""Recordings of a command and its tree: made by ``memacct record``, read by ``memacct report``.

docs/run-file.md describes the file. Not to be confused with the flight recorder, which a
process keeps of itself (docs/blackbox.md): here another process looks on.
"""

from memacct.recording._reader import is_run_file, read_run
from memacct.recording._record import Ending, Settings, record
from memacct.recording._types import DevicePoint, HostPoint, ListedProcess, Run, RunDevice
from memacct.recording._types import RunProcess as RunProcess

__all__ = [
    "DevicePoint",
    "Ending",
    "HostPoint",
    "ListedProcess",
    "Run",
    "RunDevice",
    "RunProcess",
    "Settings",
    "is_run_file",
    "read_run",
    "record",
]
