"""One reading of a figure, as its source prints it, and what it is worth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from memacct._units import GIB, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

_FACTORS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}
_SIZE = r"(?P<whole>\d+)(?:\.(?P<decimals>\d+))? (?P<unit>B|KiB|MiB|GiB)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one source tells.

    Attributes:
        told: as it is printed there, with the unit that is meant.
        source: the address.
        conditions: driver, library or how it was read; None where the source does not say.
        ecc: "on" or "off" where the figure holds for one of them only.
    """

    told: str
    source: str
    conditions: str | None = None
    ecc: str | None = None

    @property
    def size_bytes(self) -> int:
        """The size, to the nearest byte.

        Raises:
            ValueError: it is not a size.
        """
        return _parse(self.told)[0]

    @property
    def precision_bytes(self) -> int:
        """By how much the size may be off: one in the last digit that is printed; bytes are exact.

        Raises:
            ValueError: it is not a size.
        """
        return _parse(self.told)[1]


def reading_from(values: Mapping[str, Any], sources: Mapping[str, str]) -> Reading:
    """A reading as the data file has it, with its source's address for its key."""
    return Reading(
        told=values["told"],
        source=sources[values["source"]],
        conditions=values.get("conditions"),
        ecc=values.get("ecc"),
    )


def _parse(told: str) -> tuple[int, int]:
    match = re.fullmatch(_SIZE, told)
    if match is None:
        raise ValueError(f"{told!r} is not a size such as '81559 MiB' or '79.11 GiB'")
    decimals = match["decimals"] or ""
    factor, scale = _FACTORS[match["unit"]], 10 ** len(decimals)
    # In fractions: 0.01 GiB is not a whole number of bytes.
    size = round(Fraction(int(match["whole"] + decimals) * factor, scale))
    return size, 0 if match["unit"] == "B" else -(-factor // scale)
