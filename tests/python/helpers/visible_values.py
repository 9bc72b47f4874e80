"""Random values of CUDA_VISIBLE_DEVICES: what people write, and what they mistype."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

_ODD = ("", " ", "-1", "-0", "+1", "1gpu2", "01", "none", "GPU", "GPU-", "MIG-", "9" * 25, "1 2")


def _name(rng: random.Random, uuids: Sequence[str]) -> str:
    uuid = rng.choice(uuids)
    shape = rng.random()
    if shape < 0.5:
        return uuid
    if shape < 0.8:
        return uuid[: rng.randrange(4, len(uuid))]
    return rng.choice((uuid.upper(), f" {uuid}", f"{uuid} ", uuid + "0", uuid[4:]))


def random_value(rng: random.Random, uuids: Sequence[str]) -> str:
    """Returns a value for a machine with devices of these UUIDs."""
    kind = rng.choice(("number", "number", "name", "any"))
    tokens = []
    for _ in range(rng.randrange(1, len(uuids) + 3)):
        number = rng.random() < 0.5 if kind == "any" else kind == "number"
        if rng.random() < 0.15:
            token = rng.choice(_ODD)
        elif number:
            token = str(rng.randrange(len(uuids) + 1))
            token = rng.choice((token, token, f" {token}", f"{token} "))
        else:
            token = _name(rng, uuids)
        tokens.append(token)
    return ",".join(tokens)
