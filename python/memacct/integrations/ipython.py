"""``%load_ext memacct``: what a line (``%memacct``) or a cell (``%%memacct``) takes.

IPython loads this; memacct itself never imports it.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)

from memacct._errors import MemacctError, SamplerError
from memacct._measure import measure

if TYPE_CHECKING:
    from memacct._measure import Measurement

# Only what stands before the code is an option: the code is passed on as it is.
_OPTION = re.compile(r"\s*--(?P<name>[\w-]+)(?:=|\s+|$)(?P<value>[^\s=]*)\s*")
_SOURCE = "<memacct>"


@magics_class
class MemacctMagics(Magics):  # type: ignore[misc]  # IPython is not installed where types are checked
    """The magics."""

    @no_var_expand  # type: ignore[untyped-decorator]
    @needs_local_scope  # type: ignore[untyped-decorator]
    @line_cell_magic  # type: ignore[untyped-decorator]
    def memacct(
        self, line: str = "", cell: str | None = None, local_ns: dict[str, Any] | None = None
    ) -> Any:
        """Shows by how much each kind of memory changes over a line or a cell, and the peak.

        Usage:
            %memacct [--hz N] [--devices WHICH] statement
            %%memacct [--hz N] [--devices WHICH], and the code below

        --hz N: host samples a second meanwhile, for a peak that an earlier one hides; default
        none. --devices WHICH: auto (those on which this process holds a context; the default),
        all, none, or UUIDs and CUDA ordinals with commas between.
        """
        options, code = _divided(line)
        if cell is None and not code:
            raise UsageError("%memacct: there is no code to measure")
        if cell is not None and code:
            raise UsageError(f"%%memacct: {code!r} is not an option; the code goes below")
        measured = _measure(options)
        try:
            with measured:
                return self._run(cell or code, local_ns)
        finally:
            print(_text(measured))  # noqa: T201 (a magic's answer)

    def _run(self, code: str, local_ns: dict[str, Any] | None) -> Any:
        """Runs it in the user's namespace; the value of an expression at its end is returned."""
        shell: Any = self.shell
        tree = shell.transform_ast(shell.compile.ast_parse(shell.transform_cell(code)))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(shell.compile(tree, _SOURCE, "exec"), shell.user_ns, local_ns)  # noqa: S102 (the user's)
        if last is None:
            return None
        expression = shell.compile(ast.Expression(last.value), _SOURCE, "eval")
        return eval(expression, shell.user_ns, local_ns)  # noqa: S307 (the user's own code)


def _divided(line: str) -> tuple[dict[str, str], str]:
    options: dict[str, str] = {}
    while found := _OPTION.match(line):
        name, value = found["name"], found["value"]
        if name not in {"hz", "devices"} or not value:
            raise UsageError(f"%memacct: --{name} is not --hz N or --devices WHICH")
        options[name] = value
        line = line[found.end() :]
    return options, line.strip()


def _measure(options: dict[str, str]) -> Measurement:
    named = options.get("devices", "auto")
    devices: Any = {"auto": "auto", "all": "all", "none": None}.get(named, named.split(","))
    if isinstance(devices, list):
        devices = [int(each) if each.isdecimal() else each for each in devices]
    try:
        hz = None if "hz" not in options else float(options["hz"])
    except ValueError:
        raise UsageError(f"%memacct: --hz {options['hz']} is not a number") from None
    try:
        return measure("cell", sample_hz=hz, devices=devices)
    except (MemacctError, ValueError) as error:
        raise UsageError(f"%memacct: {error}") from None


def _text(measured: Measurement) -> str:
    try:
        lines = [str(measured.delta)]
    except SamplerError:  # it did not begin: the error that follows says why
        return ""
    peak = measured.peak
    return "\n".join([*lines, *([] if peak is None else [f"peak {peak}"])])
