"""Every command as a new user meets it: no GPU, no extras, no rights, a mistake, no reader.

The commands are those of COMMANDS: a new one is tried without a line here.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from cli_trials import Ending, Trials
from rich.cells import cell_len

from memacct.cli._commands import COMMANDS, INTERRUPTED, WRONG, _load

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE = "/no/such/thing"
# 124 to 127: of `run`, as of timeout(1) and of shells.
STATUSES = {0, 1, WRONG, 124, 125, 126, 127, INTERRUPTED, 141}
WIDTH = 40
# When Ctrl-C is pressed on what goes on.
PATIENCE_S = 1.0
NOISE = ("Traceback", "Exception ignored", "sys.excepthook", "Aborted", "\x1b")
MACHINE = f"trial-{secrets.token_hex(4)}"


class Leaf(NamedTuple):
    """A command that does something, by its words, and its parameters."""

    words: tuple[str, ...]
    parameters: tuple[Any, ...]
    runs_programs: bool

    def line(self, argument: str | None = None) -> list[str]:
        """A command line with ``argument`` for all arguments, or with none."""
        arguments = [p for p in self.parameters if p.param_type_name == "argument"]
        given = [] if argument is None else [argument for _ in arguments]
        # A simulated machine that nobody else uses, and that can be removed.
        named = ["--machine", MACHINE] if any(p.name == "machine" for p in self.parameters) else []
        return [*self.words, *named, *(["--"] if self.runs_programs else []), *given]

    @property
    def takes_arguments(self) -> bool:
        """Whether there is anything to name."""
        return any(p.param_type_name == "argument" for p in self.parameters)


def leaves(command: Any, words: tuple[str, ...]) -> Iterator[Leaf]:
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*words, name))
    if not hasattr(command, "commands"):
        parameters = tuple(command.params)
        yield Leaf(words, parameters, any(p.nargs == -1 for p in parameters))


LEAVES = [leaf for name, entry in COMMANDS.items() for leaf in leaves(_load(name, entry), (name,))]


def named(leaf: Leaf) -> str:
    return " ".join(leaf.words)


each_command = pytest.mark.parametrize("leaf", LEAVES, ids=named)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with Trials(tmp_path_factory.mktemp("trial")) as running:
        yield running
    with contextlib.suppress(FileNotFoundError):
        Path(f"/dev/shm/memacct_sim.{MACHINE}").unlink()


def judge(ending: Ending) -> None:
    for noise in NOISE:
        assert noise not in ending.out + ending.err, ending
    assert ending.status in STATUSES, ending
    if ending.status == WRONG:
        sentence(ending)


def sentence(ending: Ending) -> str:
    """What is said of a mistake: one line, or typer's box below the usage."""
    if "Usage:" in ending.err:
        (told,) = re.findall(r"─ Error ─+╮\n(.*?)\n╰", ending.err, re.DOTALL)
        return re.sub(r"[\s│]+", " ", told).strip()
    (line,) = [line for line in ending.err.splitlines() if line.startswith("memacct: ")]
    return line


@each_command
def test_help_fits_into_40_columns(trials: Trials, leaf: Leaf) -> None:
    ending = trials.run([*leaf.words, "--help"])
    judge(ending)
    assert ending.status == 0
    assert all(cell_len(line) <= WIDTH for line in ending.out.splitlines()), ending.out
    assert f"memacct {' '.join(leaf.words)}" in re.sub(r"\s+", " ", ending.out)


@each_command
def test_an_unknown_option_is_named(trials: Trials, leaf: Leaf) -> None:
    ending = trials.run([*leaf.words, "--no-such-option"])
    judge(ending)
    assert ending.status in {WRONG, 127}, ending
    assert "--no-such-option" in re.sub(r"[\s│]+", "", ending.err), ending


@each_command
def test_with_nothing_there_it_answers_or_says_why(trials: Trials, leaf: Leaf) -> None:
    """No GPU, no torch, no vLLM, no extras, in a folder that is read-only; Ctrl-C if it goes on."""
    ending = trials.run(leaf.line(), patience_s=PATIENCE_S)
    judge(ending)
    if ending.interrupted:
        assert ending.status in {0, INTERRUPTED}, ending
    assert ending.out + ending.err


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.takes_arguments], ids=named)
def test_what_does_not_exist_is_named(trials: Trials, leaf: Leaf) -> None:
    ending = trials.run(leaf.line(NOWHERE), writable=True)
    judge(ending)
    assert ending.status in {1, WRONG, 127}, ending
    assert NOWHERE in re.sub(r"[\s│]+", "", ending.err), ending


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.runs_programs], ids=named)
def test_a_program_in_a_read_only_folder(trials: Trials, leaf: Leaf) -> None:
    judge(trials.run(leaf.line("true")))
    interrupted = trials.run([*leaf.line("sleep"), "60"], patience_s=PATIENCE_S)
    judge(interrupted)
    assert interrupted.status != 0


@each_command
def test_nobody_reads_it(trials: Trials, leaf: Leaf) -> None:
    judge(trials.run(leaf.line(), closed=True, patience_s=PATIENCE_S))
    ending = trials.run([*leaf.words, "--help"], closed=True)
    judge(ending)
    assert ending.status == 141


def test_nothing_at_all_is_the_help(trials: Trials) -> None:
    for line in ([], ["--help"]):
        ending = trials.run(line)
        assert ending.status in {0, WRONG}, ending
        told = ending.out + ending.err
        assert all(re.search(rf"^│ {name} ", told, re.MULTILINE) for name in COMMANDS), told
        assert all(cell_len(row) <= WIDTH for row in told.splitlines()), told


def test_a_command_that_does_not_exist_is_named(trials: Trials) -> None:
    ending = trials.run(["snip"])
    assert ending.status == WRONG
    assert sentence(ending).startswith("No such command 'snip'.")
