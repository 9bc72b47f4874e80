"""Weights as they are read: which file and tensor, and that nothing of them is kept."""

from __future__ import annotations

import gc
import inspect
import json
import struct
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import memacct
from memacct.integrations.vllm._startup_step import Step
from memacct.integrations.vllm._startup_weights import (
    Watched,
    WeightsWatch,
    listed_files,
    safetensors_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Tensor:
    """As much of a tensor as is looked at."""

    def __init__(self, nbytes: int = 8) -> None:
        self.nbytes = nbytes


def write_file(path: Path, names: list[str]) -> str:
    header = json.dumps({"__metadata__": {}, **{name: {} for name in names}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return str(path)


@pytest.fixture
def timeline() -> Iterator[memacct.Timeline]:
    with memacct.Timeline(breakdown=False) as found:
        yield found


def watch(
    timeline: memacct.Timeline, files: list[str], name: str = "iterator", **kwargs: Any
) -> WeightsWatch:
    return WeightsWatch(name, files, lambda name: Step(timeline, name), **kwargs)


def ends(timeline: memacct.Timeline) -> dict[str, dict[str, Any]]:
    return {
        entry.name: dict(entry.notes or {})
        for entry in timeline.entries
        if entry.kind == "span_end"
    }


def order(timeline: memacct.Timeline) -> list[str]:
    signs = {"span_begin": "<", "span_end": ">", "checkpoint": "."}
    return [signs[e.kind] + e.name for e in timeline.entries if e.kind in signs]


def test_each_file_is_a_span_that_begins_before_it_is_read(
    timeline: memacct.Timeline, tmp_path: Path
) -> None:
    files = [write_file(tmp_path / f"m-{n}.safetensors", [f"a{n}", f"b{n}"]) for n in (10, 2)]

    def read() -> Iterator[tuple[str, Tensor]]:
        for number in (2, 10):
            timeline.checkpoint(f"open {number}")
            yield f"a{number}", Tensor()
            yield f"b{number}", Tensor()

    names = [name for name, _ in watch(timeline, files).follow(read())]
    assert names == ["a2", "b2", "a10", "b10"]
    assert order(timeline) == [
        "<weights: iterator",
        "<m-2.safetensors",
        ".open 2",
        ">m-2.safetensors",
        "<m-10.safetensors",
        ".open 10",
        ">m-10.safetensors",
        ">weights: iterator",
    ]
    told = ends(timeline)
    assert told["m-2.safetensors"]["tensors_bytes"] == 16
    assert told["m-2.safetensors"]["file_bytes"] == (tmp_path / "m-2.safetensors").stat().st_size
    assert told["weights: iterator"] == {
        "tensors_count": 4,
        "tensors_bytes": 32,
        "files_count": 2,
    }


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (["a2", "b2", "a0", "a1", "b1"], [1, 2, 2]),  # one is left out
        (["a0", "b0", "a2", "b2", "a1", "b1"], [2, 2, 2]),
    ],
)
def test_files_in_the_order_in_which_several_threads_read_them(
    timeline: memacct.Timeline, tmp_path: Path, given: list[str], counts: list[int]
) -> None:
    files = [write_file(tmp_path / f"m-{n}.safetensors", [f"a{n}", f"b{n}"]) for n in range(3)]
    followed = watch(timeline, files, "multi_thread_safetensors_weights_iterator")
    list(followed.follow((name, Tensor()) for name in given))
    told = ends(timeline)
    assert [told[f"m-{n}.safetensors"]["tensors_count"] for n in range(3)] == counts


def test_one_file_of_any_kind_is_a_span(timeline: memacct.Timeline) -> None:
    list(watch(timeline, ["/nowhere/model.gguf"]).follow([("a", Tensor())]))
    assert ends(timeline)["model.gguf"] == {"tensors_count": 1, "tensors_bytes": 8}


def test_a_list_that_is_watched_tells_its_files_in_turn(timeline: memacct.Timeline) -> None:
    followed = watch(timeline, ["/n/b.bin", "/n/a.bin"])
    files = Watched(["/n/b.bin", "/n/a.bin"], followed.begin)
    list(followed.follow((file, Tensor()) for file in files for _ in range(2)))
    assert len(files) == 2
    assert {name: notes["tensors_count"] for name, notes in ends(timeline).items()} == {
        "b.bin": 2,
        "a.bin": 2,
        "weights: iterator": 4,
    }


def test_each_tensor_is_a_point_once_it_has_been_used(timeline: memacct.Timeline) -> None:
    points: list[tuple[str, dict[str, int]]] = []
    followed = watch(timeline, [], point=lambda *point: points.append(point))
    source = iter([("a", Tensor(4)), ("b", Tensor(2))])
    stream = followed.follow(source)
    assert next(stream)[0] == "a"
    assert points == []
    assert next(stream)[0] == "b"
    assert points == [("a", {"tensor_bytes": 4})]
    assert list(stream) == []
    assert points[1:] == [("b", {"tensor_bytes": 2})]


def test_no_tensor_is_kept_while_it_is_used() -> None:
    """One more tensor in memory than without memacct would change what is measured."""
    with memacct.Timeline(breakdown=False) as timeline:

        def read() -> Iterator[tuple[str, Tensor]]:
            tensors = [Tensor(), Tensor()]
            while tensors:
                yield "a", tensors.pop()

        stream = watch(timeline, []).follow(read())
        item = next(stream)
        alive = weakref.ref(item[1])
        del item
        gc.collect()
        assert alive() is None


def test_it_is_a_generator_that_ends_what_it_follows(timeline: memacct.Timeline) -> None:
    ended: list[bool] = []

    def read() -> Iterator[tuple[str, Tensor]]:
        try:
            yield "a", Tensor()
            yield "b", Tensor()
        finally:
            ended.append(True)

    stream = watch(timeline, []).follow(read())
    assert inspect.isgenerator(stream)
    next(stream)
    stream.close()
    assert ended == [True]
    assert order(timeline)[-1] == ">weights: iterator"


def test_an_error_of_the_reader_passes_through(timeline: memacct.Timeline) -> None:
    def read() -> Iterator[tuple[str, Tensor]]:
        yield "a", Tensor()
        raise OSError("the disk's own")

    with pytest.raises(OSError, match="the disk's own"):
        list(watch(timeline, ["/n/x.gguf"]).follow(read()))
    (end,) = [e for e in timeline.entries if e.kind == "span_end" and "weights" in e.name]
    assert end.error == "OSError"


@pytest.mark.parametrize(
    "item", ["text", None, ("only a name",), ("name", None, "three"), 5], ids=repr
)
def test_what_is_no_pair_is_passed_on(
    timeline: memacct.Timeline, item: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(watch(timeline, []).follow([item, item])) == [item, item]
    assert len(caplog.records) <= 1


def test_names_are_read_from_headers_and_broken_ones_have_none(tmp_path: Path) -> None:
    assert safetensors_names(write_file(tmp_path / "a", ["x", "y"])) == ["x", "y"]
    (tmp_path / "b").write_bytes(b"\xff" * 20)
    assert safetensors_names(str(tmp_path / "b")) == []
    (tmp_path / "c").write_bytes(b"")
    assert safetensors_names(str(tmp_path / "c")) == []
    assert safetensors_names("s3://bucket/model.safetensors") == []


def test_files_are_found_among_the_arguments(tmp_path: Path) -> None:
    file = write_file(tmp_path / "a.gguf", [])
    assert listed_files((True, ["x", "y"], 3)) == ["x", "y"]
    assert listed_files((file, {})) == [file]
    assert listed_files(("no such file", [], 1)) == []
