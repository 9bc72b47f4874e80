"""Models cut to few layers are whole otherwise, and the page of starts is what the results say."""

from __future__ import annotations

import json

import pytest
from bench.dryrun.models_cases import CASES, Case
from bench.dryrun.models_cut import MODELS, cut, read_public
from bench.dryrun.models_page import PAGE, page
from bench.dryrun.models_results import read_results


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_a_case_names_models_that_are_there(case: Case) -> None:
    for name in (case.model, *(name for name, _ in case.drafts)):
        assert read_public(name)["architectures"]
    for name, _ in case.drafts:
        assert any("{" + name + "}" in option for option in case.options)


def test_every_model_is_tried_and_has_a_source() -> None:
    named = {name for case in CASES for name in (case.model, *(name for name, _ in case.drafts))}
    there = {path.parent.name for path in MODELS.glob("*/config.json")}
    sources = json.loads((MODELS / "sources.json").read_text())
    assert named <= there
    assert named <= set(sources)


def test_a_cut_has_so_many_layers_in_every_list() -> None:
    oss = cut(read_public("gpt-oss-20b"), 4)
    assert (oss["num_hidden_layers"], len(oss["layer_types"])) == (4, 4)
    hybrid = cut(read_public("Nemotron-H-8B-Base-8K"), 10)
    assert hybrid["hybrid_override_pattern"] == "M-M-M-M*-M"
    latent = cut(read_public("DeepSeek-V3"), 3)
    assert (latent["num_hidden_layers"], latent["first_k_dense_replace"]) == (3, 2)


def test_a_cut_leaves_the_tower_whole() -> None:
    whole = read_public("gemma-3-4b-it")
    short = cut(whole, 2)
    assert short["text_config"]["num_hidden_layers"] == 2
    assert short["vision_config"] == whole["vision_config"]
    assert whole["text_config"]["num_hidden_layers"] == 34


def test_the_page_is_what_the_results_say() -> None:
    # To write it: python -m bench.dryrun.models_page
    assert PAGE.read_text() == page(read_results())
