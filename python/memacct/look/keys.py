"""Bytes from a terminal as the names of keys."""

from __future__ import annotations

import re

_NAMES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "pageup",
    b"\x1b[6~": "pagedown",
    b"\r": "enter",
    b"\n": "enter",
    b"\x1b": "escape",
}
# A control sequence (CSI, SS3), a character of UTF-8, or any other byte.
_KEY = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[ -~]|[\xc2-\xf4][\x80-\xbf]+|.", re.DOTALL)


def keys_in(data: bytes) -> list[str]:
    """Returns the keys of what one read gave: characters, and names such as "up".

    Terminals send a key's sequence at once, so an escape alone is the key. What has no name
    (other function keys, bytes that are no text) is left out.
    """
    found = []
    for match in _KEY.finditer(data):
        raw = match[0]
        name = _NAMES.get(raw)
        if name is None and not raw.startswith(b"\x1b"):
            name = raw.decode("utf-8", "ignore")
        if name and (name in _NAMES.values() or name.isprintable()):
            found.append(name)
    return found
