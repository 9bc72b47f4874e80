"""docs/cli.md has every command with every option, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memacct.cli._commands import COMMANDS, _load

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "cli.md").read_text()
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
GENERAL = {"Output", "Completion"}


def leaves(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, f"{words} {name}")
    if not hasattr(command, "commands"):
        yield words, command


def test_each_command_has_a_section_in_the_order_of_the_help() -> None:
    assert [name for name in SECTIONS if name not in GENERAL] == list(COMMANDS)
    rows = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\)", PAGE, re.MULTILINE)
    assert rows == [(name, name) for name in COMMANDS]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_there_and_no_other(name: str) -> None:
    usage = "\n".join(re.findall(r"^    .*", SECTIONS[name], re.MULTILINE))
    known: set[str] = set()
    for words, command in leaves(_load(name, COMMANDS[name]), name):
        assert f"memacct {words}" in usage
        for each in command.params:
            if each.param_type_name == "option":
                names = {*each.opts, *each.secondary_opts}
                known |= names
                assert any(re.search(rf"(?<![\w-]){o}(?![\w-])", usage) for o in names), names
    ours = "\n".join(line.partition(" -- ")[0] for line in usage.splitlines())
    assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", ours)) <= known


def test_the_pages_that_it_names_are_there() -> None:
    for page in set(re.findall(r"\]\((\w[\w-]*\.md)\)", PAGE)):
        assert (DOCS / page).exists(), page
