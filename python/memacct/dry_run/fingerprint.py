"""What determines a dry run's answer, as digests: content, never a path or a time.

The model's files, the arguments as the engine understands them, the variables that it reads, the
machine's figures, the versions of all that is installed beside the engine, and the sources of what
answers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memacct._errors import SourceUnavailableError
from memacct.cards import find_card
from memacct.dry_run.arguments import canonical, with_option
from memacct.dry_run.model_folder import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from memacct.dry_run.request import Request

#: Options in which runs may differ and still tell of each other (`memacct.dry_run.interpolate`).
BETWEEN = ("--gpu-memory-utilization", "--kv-cache-memory-bytes", "--max-model-len")
# Variables that engines and their libraries read.
_READ = re.compile(
    r"(VLLM|TORCH|PYTORCH|CUDA|NCCL|TRITON|FLASHINFER|FLASH_ATTN|HF|TRANSFORMERS|DG|CUBLAS|OMP"
    r"|MEMACCT)_.*"
)
# Of those: where something lies or is logged, and what only says how the test bench runs.
_PLACES = re.compile(
    r".*_(CACHE|HOME|DIR|ROOT|PATH|PYTHON|TOKEN)|.*_CACHE_.*|VLLM_(LOGGING|HOST_IP|PORT|RPC).*"
    r"|MEMACCT_(SIM|CPU|ENGINE)_.*"
)
_HEAD_BYTES = 1 << 20  # of weights: their names and shapes are in front
_DIGITS = 32
_VERSIONS = (
    "import importlib.metadata as m, json, sys;"
    "d = [(x.metadata['Name'] or '', x.version, x.read_text('direct_url.json') or '')"
    " for x in m.distributions()];"
    "print(json.dumps([sys.version, sorted(d)]))"
)


class Fingerprint(NamedTuple):
    """Digests of a request.

    Attributes:
        family: of everything but what may be interpolated.
        rest: of that.
    """

    family: str
    rest: str


def fingerprint(
    request: Request,
    *,
    environ: Mapping[str, str] | None = None,
    costs: object = None,
) -> Fingerprint:
    """The digests of a request.

    Args:
        request: whose.
        environ: the variables that the engine inherits; default this process's.
        costs: what the run is told of libraries' costs; anything that JSON takes.

    Raises:
        SourceUnavailableError: the interpreter does not run.
    """
    inherited = os.environ if environ is None else environ
    read = {name: value for name, value in inherited.items() if _is_read(name)}
    common = request.arguments
    for name in BETWEEN:
        common = with_option(common, name, None)
    machine = asdict(request.machine)
    # The names are another way of writing the figures; a card's costs go by the card.
    card = find_card(machine.pop("gpu"))
    neighbours = machine.pop("neighbours_bytes")
    machine |= {"title": None, "sources": None, "card": card.name if card else None}
    family = {
        "model": model_digest(request.model),
        "arguments": [canonical(common), _named_files(common)],
        "environ": [sorted(read.items()), sorted(request.environ.items())],
        "machine": machine,
        "installed": installed(request.python),
        "sources": sources_digest(),
        "costs": costs,
    }
    rest = [canonical(request.arguments), sorted(neighbours)]
    return Fingerprint(_digest_of(family), _digest_of(rest)[:_DIGITS])


def model_digest(model: Path) -> str:
    """Of a model's files: weights by their size and beginning, all else whole."""
    if model.is_file():
        return _digest_of([["config.json", _content(model)]])
    files = (path for path in sorted(model.rglob("*")) if path.is_file())
    return _digest_of([[str(path.relative_to(model)), _content(path)] for path in files])


@functools.cache
def installed(python: Path) -> str:
    """A digest of the interpreter's version and of each distribution that it has.

    Raises:
        SourceUnavailableError: it does not run.
    """
    try:
        done = subprocess.run(
            [python, "-c", _VERSIONS], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SourceUnavailableError(str(python), f"does not run: {error}") from error
    return _digest_of(done.stdout)


@functools.cache
def sources_digest(package: Path = Path(__file__).parents[1]) -> str:
    """Of what makes the answer here: the dry run, the simulated GPU, the cards, the formulas."""
    files = [
        path
        for folder in ("dry_run", "sim", "cards", "planning")
        for path in sorted((package / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return _digest_of([[str(path.relative_to(package)), _whole(path)] for path in files])


def _is_read(name: str) -> bool:
    return bool(_READ.fullmatch(name)) and not _PLACES.fullmatch(name)


def _named_files(arguments: Iterable[str]) -> dict[str, str]:
    """What the files and folders hold that values name, those inside JSON included."""
    named: dict[str, str] = {}
    for argument in arguments:
        for text in _strings(argument):
            path = Path(text.partition("=")[2] or text)
            # A relative word is a value first ("auto") and only by chance a folder's name.
            if os.sep in str(path) and _is_read_for_content(path):
                named[text] = model_digest(path)
    return named


def _is_read_for_content(path: Path) -> bool:
    """Files are, and of folders only those of models and adapters."""
    try:
        return path.is_file() or any(path.glob("*config.json"))
    except (OSError, ValueError):  # a text that is no path: a template, say
        return False


def _strings(argument: str) -> Iterator[str]:
    if argument[:1] not in {"{", "["}:
        yield argument
        return
    try:
        yield from _leaves(json.loads(argument))
    except ValueError:
        yield argument


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)


def _content(path: Path) -> str:
    if path.suffix not in WEIGHTS:
        return _whole(path)
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
    return f"{path.stat().st_size} {head}"


def _whole(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_of(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
