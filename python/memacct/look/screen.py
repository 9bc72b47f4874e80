"""The state of the screen, and what each key makes of it: pure data, no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memacct.look.parts import SORTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from memacct.look.look_types import Holder, Look

Row = tuple[str, "Holder"]


class Screen(NamedTuple):
    """What the user has chosen.

    Attributes:
        sort: by what the processes are ordered, one of ``SORTS``.
        selected: the row that the keys are about: a GPU's label and a pid.
        picked: the process that own and tree are about.
        message: of the last thing that went wrong, or ended.
    """

    sort: str = "gpu"
    selected: tuple[str, int] | None = None
    picked: int | None = None
    paused: bool = False
    helping: bool = False
    quitting: bool = False
    message: str = ""


def rows_of(look: Look, sort: str) -> list[Row]:
    """Returns every process of every GPU, in order."""
    rows = [(gpu.label, holder) for gpu in look.gpus or () for holder in gpu.processes]
    return sorted(rows, key=SORTS[sort])


def press(screen: Screen, key: str, look: Look) -> Screen:
    """Returns the screen after a key: a character, or a name such as "up" or "enter"."""
    if screen.helping and key != "q":
        return screen._replace(helping=False)
    action = _ACTIONS.get(key)
    return screen if action is None else action(screen._replace(message=""), look)


def _sort(screen: Screen, _look: Look) -> Screen:
    names = list(SORTS)
    return screen._replace(sort=names[(names.index(screen.sort) + 1) % len(names)])


def _move(step: int) -> Callable[[Screen, Look], Screen]:
    def moved(screen: Screen, look: Look) -> Screen:
        rows = [(label, holder.pid) for label, holder in rows_of(look, screen.sort)]
        if not rows:
            return screen._replace(selected=None)
        if screen.selected not in rows:
            return screen._replace(selected=rows[0 if step > 0 else -1])
        place = min(max(rows.index(screen.selected) + step, 0), len(rows) - 1)
        return screen._replace(selected=rows[place])

    return moved


def _pick(screen: Screen, look: Look) -> Screen:
    rows = [(label, holder.pid) for label, holder in rows_of(look, screen.sort)]
    if screen.selected not in rows:
        if not rows:
            return screen._replace(message="no process to pick")
        return screen._replace(selected=rows[0])
    if look.numbers == "others":
        return screen._replace(message="these are not this container's numbers: nobody to pick")
    pid = screen.selected[1]
    return screen._replace(picked=None if screen.picked == pid else pid)


def _escape(screen: Screen, _look: Look) -> Screen:
    if screen.picked is not None:
        return screen._replace(picked=None)
    return screen._replace(selected=None)


_ACTIONS: dict[str, Callable[[Screen, Look], Screen]] = {
    "q": lambda screen, _: screen._replace(quitting=True),
    "p": lambda screen, _: screen._replace(paused=not screen.paused),
    " ": lambda screen, _: screen._replace(paused=not screen.paused),
    "s": _sort,
    "down": _move(1),
    "j": _move(1),
    "up": _move(-1),
    "k": _move(-1),
    "pagedown": _move(10),
    "pageup": _move(-10),
    "enter": _pick,
    "escape": _escape,
    "?": lambda screen, _: screen._replace(helping=True),
    "h": lambda screen, _: screen._replace(helping=True),
}

HELP = (
    ("q", "quit (so does Ctrl-C)"),
    ("p, space", "pause: nothing is read until you go on"),
    ("s", "sort by GPU memory, host memory, pid, name"),
    ("↑ ↓ j k", "choose a process"),
    ("enter", "pick it: own and tree are about it and its descendants"),
    ("escape", "about nobody again"),
    ("?", "this help; any key leaves it"),
)
