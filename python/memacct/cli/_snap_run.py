"""What ``memacct snap`` does; without typer, so that the fast path has it in milliseconds."""

from __future__ import annotations

import sys


def run_snap(
    *,
    pid: int | None = None,
    tree: bool = False,
    host: str = "breakdown",
    devices: str = "auto",
    as_json: bool = False,
) -> None:
    """Prints one look at the machine, or at a process.

    Raises:
        ConfigError: an option's value is not allowed; the message says what is.
        ValueError: there is no such process.
    """
    from memacct._errors import ConfigError
    from memacct.look.reading import Reader

    if tree and pid is None:
        raise ConfigError("--tree is about a process: give --pid, too")
    look = Reader(devices, host=host, tree=tree).read(pid)  # type: ignore[arg-type]
    if as_json:
        import json

        print(json.dumps(look.to_dict()))
        return
    from memacct.look.output import codes_of, size_of, write_lines
    from memacct.look.snap_text import snap_lines

    columns, _ = size_of(sys.stdout)
    write_lines(sys.stdout, snap_lines(look, columns), codes_of(sys.stdout))
