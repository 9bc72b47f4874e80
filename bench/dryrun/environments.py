"""What a dry run's environment has beyond the version matrix's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.engine.version_matrix.environment import Environment, declared
from bench.engine.version_matrix.recipe import name_of

if TYPE_CHECKING:
    from bench.engine.version_matrix.versions import Target

# Left out of the matrix, where no model is quantised; vLLM imports it for AWQ and GPTQ. A megabyte.
KERNELS = frozenset({"humming-kernels"})


def complete(target: Target, environment: Environment) -> None:
    """Adds the kernels' packages as this vLLM pins them, without their extras: toolkits of CUDA.

    Raises:
        InstallError: one could not be installed.
    """
    done = environment.folder / ".dryrun-done"
    if done.exists():
        return
    for requirement in declared(target, environment):
        if name_of(requirement) in KERNELS:
            environment.install(re.sub(r"\[[^\]]*\]", "", requirement).split(";")[0])
    done.touch()
