"""What this machine lets us see and what not, why, and what to do about it.

    diagnosis = examine()
    print(diagnosis.worst, [finding.what for finding in diagnosis.findings])

``read_machine`` looks, once; the rules are pure functions of what it saw.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memacct.doctor._types import LEVELS, TOPICS, Diagnosis, Finding, Level, diagnosis_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memacct.doctor._engine import Engine
    from memacct.doctor._facts import Machine

__all__ = ["LEVELS", "TOPICS", "Diagnosis", "Finding", "Level", "examine", "judge"]


def examine(
    environ: Mapping[str, str] | None = None,
    *,
    python: str | None = None,
    probe: bool = False,
) -> Diagnosis:
    """Looks at the machine, the environment's settings and the engine that is installed.

    Args:
        environ: the settings; default this process's.
        python: the interpreter whose vLLM and torch are looked at; default: of the ``vllm``
            command in the path, else this one.
        probe: have a process of its own make a CUDA context for a moment, and say whether it
            finds itself in the driver's list. Otherwise no context is made.

    Raises:
        ConfigError: `python` cannot be run.
    """
    from memacct.doctor._engine import read_engine
    from memacct.doctor._facts import read_machine
    from memacct.doctor._probe import probe_own_record

    given = os.environ if environ is None else environ
    own = probe_own_record(given) if probe else None
    return judge(read_machine(given, own), read_engine(python))


def judge(machine: Machine, engine: Engine | None = None) -> Diagnosis:
    """Returns what there is to say of a machine that was read, and of an engine's files. Pure."""
    from memacct.doctor._driver import driver_findings
    from memacct.doctor._engine import engine_findings
    from memacct.doctor._kernel import host_findings
    from memacct.doctor._settings import setting_findings

    findings = [
        *driver_findings(machine),
        *host_findings(machine),
        *setting_findings(machine),
        *(engine_findings(engine) if engine is not None else ()),
    ]
    return diagnosis_of(findings)
