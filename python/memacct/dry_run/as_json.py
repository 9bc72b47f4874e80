"""A dry run as plain data and back: what ``--json`` prints and what the cache keeps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from memacct.dry_run.request import Machine, Request
from memacct.dry_run.result import Amount, Count, DryRun, Host, Phase, Rank, Refusal, Row

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Goes up when a reader of the former one would misunderstand.
SCHEMA = 1

_BESIDES = frozenset({"schema_version", "kind", "plan"})  # not of the dry run itself
_AMOUNTS = (
    "weights",
    "activation_peak",
    "non_torch",
    "graphs_estimated",
    "graphs",
    "kv_cache",
    "context",
)


def to_json(run: DryRun) -> dict[str, Any]:
    """Everything that a dry run answers; bytes are ints, what is not known is null.

    The names are those of the types in `memacct.dry_run.result` and `request`.
    """
    return {"schema_version": SCHEMA, "kind": "dryrun", **_plain(asdict(run))}


def from_json(data: Mapping[str, Any]) -> DryRun:
    """The dry run that `to_json` wrote.

    Raises:
        ValueError: another schema.
        KeyError: something is missing of it.
        TypeError: something is of another kind, or nobody knows it.
    """
    if data["schema_version"] != SCHEMA or data["kind"] != "dryrun":
        raise ValueError(f"schema {data['schema_version']} of {data['kind']!r} is not {SCHEMA}")
    told = {name: data[name] for name in data if name not in _BESIDES}
    return DryRun(
        **told
        | {
            "request": request_from_json(told["request"]),
            "ranks": tuple(_rank(each) for each in told["ranks"]),
            "kv_tokens": _count(told["kv_tokens"]),
            "concurrency": _count(told["concurrency"]),
            "host": _host(told["host"]),
            "timeline": tuple(Phase(**each) for each in told["timeline"]),
            "refusal": _refusal(told["refusal"]),
            "notes": tuple(told["notes"]),
        }
    )


def request_from_json(data: Mapping[str, Any]) -> Request:
    """The request in `to_json`'s data."""
    machine = data["machine"]
    return Request(
        **{
            **data,
            "model": Path(data["model"]),
            "python": Path(data["python"]),
            "arguments": tuple(data["arguments"]),
            "machine": Machine(
                **{
                    **machine,
                    "compute_capability": tuple(machine["compute_capability"]),
                    "neighbours_bytes": tuple(machine["neighbours_bytes"]),
                }
            ),
        }
    )


def _rank(data: Mapping[str, Any]) -> Rank:
    rows = {name: tuple(_row(each) for each in data[name]) for name in ("peak", "started")}
    return Rank(**{**data, **{name: _amount(data[name]) for name in _AMOUNTS}, **rows})


def _row(data: Mapping[str, Any]) -> Row:
    return Row(name=data["name"], amount=Amount(**data["amount"]))


def _amount(data: Mapping[str, Any] | None) -> Amount | None:
    return None if data is None else Amount(**data)


def _count(data: Mapping[str, Any] | None) -> Count | None:
    return None if data is None else Count(**data)


def _host(data: Mapping[str, Any] | None) -> Host | None:
    if data is None:
        return None
    amounts = {name: Amount(**data[name]) for name in ("held", "reclaimable")}
    return Host(**{**data, **amounts})


def _refusal(data: Mapping[str, Any] | None) -> Refusal | None:
    if data is None:
        return None
    suggestions = tuple(data["suggestions"])
    return Refusal(**{**data, "missing": _amount(data["missing"]), "suggestions": suggestions})


def _plain(value: Any) -> Any:
    """Only what JSON has: paths and all else that it has not become text."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value) if isinstance(value, PurePath) else repr(value)
