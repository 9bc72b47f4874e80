"""The file that `memacct calibrate` writes: one entry for each card, driver and torch."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct._errors import ConfigError

from .result import Amount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA_VERSION = 1
_NAME = "calibration.json"
# Another driver or torch may well take half or double.
_OTHER_RATIO = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured once.

    Attributes:
        card: as the driver names it.
        driver: its version.
        torch: its version.
        cuda: that torch is built for.
        vllm: that was started; None: no engine was.
        when: in ISO 8601, UTC.
        gpus: how many took part.
        wsl: it was below Windows.
        figures: by the names of the terms of `memacct.dry_run.costs.Costs`.
        notes: what to know of them, for people.
    """

    card: str
    driver: str
    torch: str
    cuda: str
    vllm: str | None
    when: str
    gpus: int
    wsl: bool
    figures: Mapping[str, Amount]
    notes: tuple[str, ...] = field(default=())


def default_path() -> Path:
    """Where the user's measurements are: XDG_CONFIG_HOME, else ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "memacct" / _NAME


def read_calibrations(path: Path) -> tuple[Calibration, ...]:
    """The entries of a file.

    Raises:
        ConfigError: it is not there, or not what ``memacct calibrate`` writes.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["schema_version"]
        # Of another version the entries are not what is known here.
        entries = tuple(map(_entry, data["entries"])) if version == SCHEMA_VERSION else ()
    except OSError as error:
        raise ConfigError(f"calibration file {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no file that memacct calibrate wrote: {error!r}") from None
    if version != SCHEMA_VERSION:
        raise ConfigError(f"{path} has schema_version {version}, not {SCHEMA_VERSION}")
    return entries


def write_calibration(path: Path, found: Calibration) -> None:
    """Adds an entry, in the place of one for the same card, driver and torch, with as many GPUs.

    As many: one, or several, between which NCCL was measured.
    """
    others = read_calibrations(path) if path.exists() else ()
    entries = [each for each in others if _key(each) != _key(found)]
    data = {
        "schema_version": SCHEMA_VERSION,
        "entries": [asdict(each) for each in (*entries, found)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def find_calibration(
    card: str,
    *,
    driver: str | None = None,
    torch: str | None = None,
    cuda: str | None = None,
    given: Path | None = None,
) -> Calibration | None:
    """The measurement of a card that fits best; of another driver or torch with a wider range.

    Args:
        card: as the driver names it.
        driver: its version; None does not matter.
        torch: likewise.
        cuda: likewise.
        given: the file; else the user's, if there is one.

    Raises:
        ConfigError: `given` cannot be read, or has no entry for the card.
    """
    path = given or default_path()
    if given is None and not path.exists():
        return None
    entries = [one for one in read_calibrations(path) if one.card.lower() == card.lower()]
    if not entries:
        if given is None:
            return None
        raise ConfigError(f"{given} has no measurement of a card that is called {card!r}")
    wanted = {"driver": driver, "torch": torch, "cuda": cuda}
    best = min(reversed(entries), key=lambda one: len(_differing(one, wanted)))
    differing = _differing(best, wanted)
    note = f"costs measured {best.when} with driver {best.driver}, torch {best.torch}: {path}"
    if not differing:
        return replace(best, notes=(note, *best.notes))
    wider = {name: _wider(amount) for name, amount in best.figures.items()}
    note = f"{note}; wider, as {' and '.join(differing)} differs"
    return replace(best, figures=wider, notes=(note, *best.notes))


def _differing(one: Calibration, wanted: Mapping[str, str | None]) -> Sequence[str]:
    """What differs: a driver in its branch, others in major and minor version."""
    return [
        name
        for name, version in wanted.items()
        if version is not None and _short(name, version) != _short(name, getattr(one, name))
    ]


def _short(name: str, version: str) -> list[str]:
    return version.partition("+")[0].split(".")[: 1 if name == "driver" else 2]


def _wider(amount: Amount) -> Amount:
    low_bytes, high_bytes = amount.low_bytes // _OTHER_RATIO, amount.high_bytes * _OTHER_RATIO
    return replace(amount, low_bytes=low_bytes, high_bytes=high_bytes)


def _key(one: Calibration) -> tuple[str, str, str, bool]:
    return one.card, one.driver, one.torch, one.gpus > 1


def _entry(values: Mapping[str, Any]) -> Calibration:
    figures = {name: Amount(**amount) for name, amount in values["figures"].items()}
    return Calibration(
        **{**values, "figures": figures, "notes": tuple(values.get("notes", ()))},
    )
