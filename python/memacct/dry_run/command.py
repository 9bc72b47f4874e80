"""An engine's command line taken apart: variables, the model, the options, the interpreter."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memacct._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_SERVER_MODULE = "vllm.entrypoints.openai.api_server"
_EXAMPLE = "such as `memacct dryrun --gpu h100 -- vllm serve MODEL --max-model-len 8192`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command as it was written.

    Attributes:
        model: the text that names it.
        arguments: the engine's options.
        environ: variables that stood before the command.
        python: the interpreter that the command names; None: it names none.
    """

    model: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None


def parse_command(words: str | Sequence[str]) -> Command:
    """Takes a command apart: ``vllm serve``, the server's module, or MODEL and options alone.

    Options themselves are not judged: that is the engine's own parser's.

    Raises:
        ConfigError: no command, no model, or a command that starts no server.
    """
    try:
        rest = shlex.split(words) if isinstance(words, str) else [str(word) for word in words]
    except ValueError as error:
        raise ConfigError(f"the command {words!r} cannot be taken apart: {error}") from None
    environ: dict[str, str] = {}
    if rest[:1] == ["env"]:
        rest.pop(0)
    while rest and _VARIABLE.match(rest[0]):
        name, _, value = rest.pop(0).partition("=")
        environ[name] = value
    if not rest:
        raise ConfigError(f"no engine to dry-run: give its command after --, {_EXAMPLE}")
    python, rest = _without_program(rest)
    model, arguments = _model(rest)
    return Command(model=model, arguments=tuple(arguments), environ=environ, python=python)


def _without_program(words: list[str]) -> tuple[str | None, list[str]]:
    """The interpreter that a command names, and what follows ``vllm serve`` or its like."""
    program = words[0].rpartition("/")[2]
    if program == "vllm":
        if words[1:2] != ["serve"]:
            said = " ".join(words[:2])
            raise ConfigError(f"{said}: only `vllm serve` can be dry-run, {_EXAMPLE}")
        return None, words[2:]
    if re.fullmatch(r"python[0-9.]*", program):
        return words[0] if "/" in words[0] else None, _after_module(words[1:])
    return None, words


def _after_module(words: list[str]) -> list[str]:
    if words[:2] == ["-m", _SERVER_MODULE]:
        return words[2:]
    if words[:3] == ["-m", "vllm.entrypoints.cli.main", "serve"]:
        return words[3:]
    raise ConfigError(
        f"python {' '.join(words[:2])}: of Python's modules only `-m {_SERVER_MODULE}` can be "
        f"dry-run, {_EXAMPLE}"
    )


def _model(words: list[str]) -> tuple[str, list[str]]:
    """The model and the options without it; --model and the first word without a dash name it."""
    rest = list(words)
    for index, word in enumerate(rest):
        name, given, value = word.partition("=")
        if name in {"--model", "--model-tag"}:
            if given:
                return value, rest[:index] + rest[index + 1 :]
            if index + 1 < len(rest):
                return rest[index + 1], rest[:index] + rest[index + 2 :]
    if rest and not rest[0].startswith("-"):
        return rest[0], rest[1:]
    raise ConfigError(f"the command names no model: its folder comes first, {_EXAMPLE}")
