"""An engine's options as it understands them: order, spelling and repetition do not matter.

The engine's own parser is not asked, since it lives in another Python and takes seconds. Two
spellings are taken for equal only where vLLM's parser says so: a dash for an underscore,
``--name=value``, short names, the beginning of a name, the last of two, and the sizes that it reads
("32k"). All else makes two requests of one, which costs a start and is never wrong.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# vllm serve --help, 0.33.0.
_SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-q": "--quantization",
    "-cc": "--compilation-config",
    "-ac": "--attention-config",
    "-sc": "--speculative-config",
}
_NUMBERS = frozenset(
    {
        "--gpu-memory-utilization",
        "--max-num-seqs",
        "--tensor-parallel-size",
        "--pipeline-parallel-size",
        "--data-parallel-size",
        "--block-size",
    }
)
# What every vLLM takes for granted, by the option: saying so changes nothing.
_GRANTED = {
    "--tensor-parallel-size": "1",
    "--pipeline-parallel-size": "1",
    "--dtype": "auto",
    "--kv-cache-dtype": "auto",
}
# Of the server in front of the engine, which never reach its memory.
_SERVER = {
    "--host": re.compile(r".+"),
    "--port": re.compile(r"\d{1,5}"),
    "--api-key": re.compile(r".+"),
    "--served-model-name": re.compile(r".+"),
}
#: Options whose value may be written with a unit.
_SIZES = frozenset({"--max-model-len", "--max-num-batched-tokens", "--kv-cache-memory-bytes"})
_SHORTEST = 5  # of a name's beginning; vLLM refuses one that begins several
# Of vLLM's human_readable_int: small letters are powers of 1000, large ones of 1024 (int only).
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_LARGE_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")


class Option(NamedTuple):
    """One option with the values that follow it; without a name, what stands before the first."""

    name: str
    values: tuple[str, ...]


def parse_options(arguments: Sequence[str]) -> list[Option]:
    """The options in their order, by their long names."""
    found: list[Option] = []
    for argument in arguments:
        if not _is_name(argument):
            last = found.pop() if found else Option("", ())
            found.append(last._replace(values=(*last.values, argument)))
            continue
        name, equals, value = argument.partition("=")
        found.append(Option(_long(name), (value,) if equals else ()))
    return found


def value_of(arguments: Sequence[str], name: str) -> str | None:
    """The value that an option ends up with; None if it is not given."""
    given = [each.values for each in parse_options(arguments) if each.name == name]
    return plain_value(name, given[-1][0]) if given and given[-1] else None


def number_of(arguments: Sequence[str], name: str) -> int | None:
    """That value as a whole number; None where it is not given, or no such number."""
    value = value_of(arguments, name)
    try:
        return None if value is None else int(value)
    except ValueError:
        return None


def is_given(arguments: Sequence[str], name: str) -> bool:
    """Whether an option is among them, with or without a value."""
    return any(each.name == name for each in parse_options(arguments))


def with_option(arguments: Sequence[str], name: str, value: object | None) -> tuple[str, ...]:
    """The arguments with an option changed to a value; None takes it away."""
    kept = [each for each in parse_options(arguments) if each.name != name]
    if value is not None:
        kept.append(Option(name, (str(value),)))
    return tuple(_words(kept))


def canonical(arguments: Sequence[str]) -> tuple[str, ...]:
    """One form for all ways of saying the same; only to be compared.

    What says nothing is left out: options of the server, and some given with the value that they
    have anyway. A file of options (``--config``) gives others, so then all of them are kept.
    """
    found: dict[str, list[Option]] = {}
    for option in parse_options(arguments):
        values = tuple(plain_value(option.name, each) for each in option.values)
        # Of a number the last counts. What others make of being repeated is theirs to know.
        earlier = [] if option.name in _NUMBERS | _SIZES else found.get(_switch(option.name), [])
        found[_switch(option.name)] = [*earlier, Option(option.name, values)]
    if "--config" not in found:
        found = {name: given for name, given in found.items() if not _says_nothing(given)}
    return tuple(_words(each for name in sorted(found) for each in found[name]))


def _says_nothing(given: Sequence[Option]) -> bool:
    """Whether an option, with all that it was given, leaves the engine's memory as it is.

    A value that the parser would refuse does say something.
    """
    if len(given) != 1 or not given[0].values:
        return False
    (name, values) = given[0]
    if name in _GRANTED:
        return values == (_GRANTED[name],)
    return name in _SERVER and len(values) == 1 and bool(_SERVER[name].fullmatch(values[0]))


def plain_value(name: str, value: str) -> str:
    """A value without its spelling: 0.90 is 0.9, 32k is 32000, JSON has its keys in order."""
    if name in _SIZES and (size := _SIZE.fullmatch(value)):
        unit = {**_UNITS, **_LARGE_UNITS}[size[2]]
        return str(int(Decimal(size[1]) * unit))
    if name in _NUMBERS | _SIZES:
        try:
            return f"{Decimal(value).normalize():f}"
        except InvalidOperation:
            return value
    if value[:1] in {"{", "["}:
        try:
            return json.dumps(json.loads(value), sort_keys=True)
        except ValueError:
            return value
    return value


def _is_name(argument: str) -> bool:
    """Whether it names an option: a negative number (--max-model-len -1) does not."""
    return argument.startswith("-") and not re.match(r"-[\d.]", argument) and argument != "-"


def _long(name: str) -> str:
    # Only before a dot: behind it are keys of a dictionary, where an underscore is one.
    head, dot, rest = name.partition(".")
    plain = head.replace("_", "-") if head.startswith("--") else head
    plain = _SHORT.get(plain, plain)
    begun = [each for each in _NUMBERS | _SIZES if each.startswith(plain)]
    if len(begun) == 1 and len(plain) >= _SHORTEST:
        plain = begun[0]
    return plain + dot + rest


def _switch(name: str) -> str:
    """What an option and its opposite have in common, so that their order is kept."""
    plain = "--" + name[5:] if name.startswith("--no-") else name
    return "--enable-" + plain[10:] if plain.startswith("--disable-") else plain


def _words(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        if len(option.values) == 1 and option.values[0].startswith("-") and option.name:
            yield f"{option.name}={option.values[0]}"  # apart, it would be an option of its own
            continue
        if option.name:
            yield option.name
        yield from option.values
