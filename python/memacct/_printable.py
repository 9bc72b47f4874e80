"""Names as tables and logs can hold them: a line each, encodable as UTF-8."""

from __future__ import annotations


def printable(text: str) -> str:
    """Returns ``text`` with what is no visible character escaped.

    Names of files and of processes may hold newlines, terminal escapes and bytes that are no
    UTF-8 (surrogates in Python), which would break a table or the stream that it is written to.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
