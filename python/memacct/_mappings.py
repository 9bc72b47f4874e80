"""A process's mappings subtracted, as a table and as a data frame.

The readings themselves, and their sums by kind and by file, are native (``memacct._core``),
and call what is here for what needs Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._core import MAPPING_KINDS, Mappings
from memacct._mapping_delta import HEADER, SHOWN_TERMS, MappingsDelta, joined, line, unknown_terms

if TYPE_CHECKING:
    import pandas as pd

    from memacct._core import MappingTotals

# What models are saved as: files whose residency people ask about by name.
CHECKPOINT_SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
_SHOWN_FILES = 10


def difference(after: Mappings, before: Mappings) -> MappingsDelta:
    """Returns what changed in a process's mappings.

    Raises:
        ValueError: they are of two processes; the message names both.
    """
    if not isinstance(before, Mappings):
        return NotImplemented
    if after.pid != before.pid:
        raise ValueError(f"these are of two processes, pid {after.pid} and pid {before.pid}")
    kinds = after.by_kind(), before.by_kind()
    files = after.by_file(), before.by_file()
    return MappingsDelta(
        pid=after.pid,
        kinds=joined(kinds[0].values(), kinds[1].values(), lambda a, b: a - b),
        files=joined(files[0].values(), files[1].values(), lambda a, b: a - b),
        unknown_terms=unknown_terms([*kinds[0].values(), *kinds[1].values()]),
    )


def _totals_line(totals: MappingTotals) -> str:
    return line(totals.name, [getattr(totals, term) for term in SHOWN_TERMS], signed=False)


def render(mappings: Mappings) -> str:
    """Returns the mappings as a table: by kind with their sum, then the largest files.

    Checkpoints (by their suffix) are shown however small a part of them is resident.
    """
    kinds = list(mappings.by_kind().values())
    sums = [
        None if any(v is None for v in column) else sum(v for v in column if v is not None)
        for column in ([getattr(kind, term) for kind in kinds] for term in SHOWN_TERMS)
    ]
    files = list(mappings.by_file().values())
    checkpoints = [file for file in files if is_checkpoint(file.name)]
    others = [file for file in files if not is_checkpoint(file.name)]
    lines = [
        f"process {mappings.pid}, {len(mappings)} mappings, from {mappings.source}",
        HEADER.format("kind"),
        *map(_totals_line, kinds),
        line("sum", sums, signed=False),
    ]
    if checkpoints:
        lines += ["", HEADER.format("checkpoint"), *map(_totals_line, checkpoints)]
    if others:
        shown = others[:_SHOWN_FILES]
        lines += ["", HEADER.format("file"), *map(_totals_line, shown)]
        if len(others) > len(shown):
            lines.append(f"... and {len(others) - len(shown)} more files")
    return "\n".join(lines)


def is_checkpoint(path: str) -> bool:
    """Whether a file's name says that it holds a model's weights."""
    return path.removesuffix(" (deleted)").endswith(CHECKPOINT_SUFFIXES)


def to_pandas(mappings: Mappings) -> pd.DataFrame:
    """Returns a row a mapping; ``kind`` and ``path`` as text.

    Raises:
        ImportError: pandas is not installed; the message says so.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_pandas() needs pandas, which is not installed") from error
    rows = mappings.rows
    frame = pd.DataFrame({name: rows[name] for name in rows.dtype.names or ()})
    frame["kind"] = pd.Categorical.from_codes(rows["kind"].astype("int64"), list(MAPPING_KINDS))
    paths = mappings.paths
    frame["path"] = [paths[i] if i >= 0 else None for i in rows["path_index"]]
    return frame.drop(columns="path_index")
