"""The weights as they are read: a span for the iterator, one for each file, a point a tensor.

vLLM's iterators yield (name, tensor) and do not say from which file. Of safetensors the names
in each file are read from its header, a few hundred KiB that the loader reads too.
"""

from __future__ import annotations

import json
import os
import re
import struct
from typing import TYPE_CHECKING, Any

from memacct.integrations.vllm._startup_notes import tensor_bytes
from memacct.integrations.vllm._startup_step import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from memacct.integrations.vllm._startup_step import Step

# Opens the files of its list one after the other, in its order.
SEQUENTIAL = "pt_weights_iterator"
# These read several files at once, so which one is next is not known before its first tensor.
_SEVERAL_AT_ONCE = ("multi_thread", "runai", "fastsafetensors", "instanttensor")
_LARGEST_HEADER_BYTES = 100_000_000  # of the format's own definition


def listed_files(args: Iterable[Any]) -> list[str]:
    """Returns the files that an iterator is given: the first list of texts, or one file."""
    for value in args:
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], (str, os.PathLike)):
            return [os.fspath(each) for each in value]
    return [each for each in args if isinstance(each, str) and os.path.isfile(each)][:1]  # noqa: PTH113


class Watched(list[str]):
    """A list of files that tells which one is taken next, to an iterator that opens it then."""

    def __init__(self, files: Iterable[str], told: Callable[[str], None]) -> None:
        super().__init__(files)
        self._told = told

    def __iter__(self) -> Iterator[str]:
        """Tells each file before it is opened."""
        for file in super().__iter__():
            self._told(file)
            yield file


class WeightsWatch:
    """Follows one iterator over the weights.

    Args:
        name: of the iterator.
        files: that it was given.
        new_step: makes a span.
        point: adds a checkpoint; None: no points for tensors.
    """

    def __init__(
        self,
        name: str,
        files: list[str],
        new_step: Callable[[str], Step],
        point: Callable[[str, dict[str, int]], None] | None = None,
    ) -> None:
        self._whole = new_step(f"weights: {name}")
        self._files = sorted(files, key=_natural)
        self._in_order = not name.startswith(_SEVERAL_AT_ONCE)
        self._new_step, self._point = new_step, point
        self._unread = [file for file in self._files if file.endswith(".safetensors")]
        self._owners: dict[str, str] = {}
        self._left: dict[str, int] = {}  # tensors that are still to come, by file
        self._begun: set[str] = set()
        self._step: Step | None = None
        self._latest: tuple[str, int] | None = None
        self._file_bytes = self._file_count = self._bytes = self._count = 0

    def follow(self, source: Iterable[Any]) -> Generator[Any, None, None]:
        """Yields what ``source`` yields, and holds none of it."""
        iterator = iter(source)
        with self._whole:
            try:
                guarded(self._open_known)
                while True:
                    try:
                        # No name for it: a tensor that is held here while it is used would
                        # be one more in memory than without memacct.
                        yield self._next(iterator)
                    except StopIteration:  # noqa: PERF203 (one handler would hide which)
                        return
            finally:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
                guarded(self._end)

    def begin(self, file: str) -> None:
        """The next tensors are of ``file``; its span begins, once."""
        if file in self._begun:
            return
        self._close()
        self._begun.add(file)
        self._step = self._new_step(os.path.basename(file))  # noqa: PTH119 (a URL too)
        size_bytes = _size(file)
        if size_bytes is not None:
            self._step.notes["file_bytes"] = size_bytes
        self._step.__enter__()

    def _next(self, iterator: Iterator[Any]) -> Any:
        guarded(self._consumed)
        item = next(iterator)
        guarded(lambda: self._seen(item))
        return item

    def _end(self) -> None:
        self._consumed()
        self._close()
        self._whole.notes.update(
            tensors_count=self._count, tensors_bytes=self._bytes, files_count=len(self._files)
        )

    def _open_known(self) -> None:
        """Begins the first file's span before the file is read, where it is known."""
        if len(self._files) == 1:
            self.begin(self._files[0])
        elif self._unread and self._in_order:
            self.begin(self._unread[0])

    def _consumed(self) -> None:
        """The tensor that was given away last has been used."""
        if self._latest is None:
            return
        (name, size_bytes), self._latest = self._latest, None
        if self._point is not None:
            self._point(name, {"tensor_bytes": size_bytes})
        owner = self._owners.get(name)
        if owner is not None:
            self._left[owner] -= 1
            if self._left[owner] == 0 and self._unread and self._in_order:
                # All of it was taken, so what is read next is the next file; a span that
                # began with its first tensor would leave the reading to the file before.
                self.begin(self._unread[0])

    def _seen(self, item: Any) -> None:
        name, size_bytes = str(item[0]), tensor_bytes(item[-1]) or 0
        self._latest = (name, size_bytes)
        owner = self._owner(name)
        if owner is not None and owner not in self._begun:
            self.begin(owner)
        self._count += 1
        self._bytes += size_bytes
        self._file_count += 1
        self._file_bytes += size_bytes

    def _owner(self, name: str) -> str | None:
        while name not in self._owners and self._unread:
            file = self._unread.pop(0)
            names = safetensors_names(file)
            self._left[file] = len(names)
            self._owners.update(dict.fromkeys(names, file))
        return self._owners.get(name)

    def _close(self) -> None:
        step, self._step = self._step, None
        if step is not None:
            step.notes.update(tensors_count=self._file_count, tensors_bytes=self._file_bytes)
            step.__exit__(None, None, None)
        self._file_count = self._file_bytes = 0


def safetensors_names(path: str) -> list[str]:
    """Returns the names of the tensors in a file; none where it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (loaders give text)
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LARGEST_HEADER_BYTES:
                return []
            header = json.loads(file.read(length))
    except (OSError, ValueError, struct.error):  # another host's, or not of this format
        return []
    return [name for name in header if name != "__metadata__"]


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (a URL too)
    except OSError:
        return None


def _natural(path: str) -> list[tuple[int, str]]:
    """Orders "part-2" before "part-10", as vLLM does."""
    pieces = re.split(r"(\d+)", os.path.basename(path))  # noqa: PTH119 (a URL too)
    return [(int(piece), "") if piece.isdigit() else (0, piece) for piece in pieces]
