"""What is made up of a tokenizer and a processor is config.json's, and a model's own files stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memacct.dry_run.processor import complete, is_multimodal

MODELS = Path(__file__).parents[3] / "bench" / "dryrun" / "models"


def public(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((MODELS / name / "config.json").read_text())
    return config


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


def vocabulary(folder: Path) -> dict[str, int]:
    found: dict[str, int] = read(folder, "tokenizer.json")["model"]["vocab"]
    return found


def test_special_tokens_have_the_ids_of_the_config(tmp_path: Path) -> None:
    complete(tmp_path, public("Qwen3.5-9B"))
    vocab = vocabulary(tmp_path)
    assert vocab["<|image_pad|>"] == 248056
    assert vocab["<|im_end|>"] == 248044
    # No holes, of which a library would tell one by one.
    assert sorted(vocab.values()) == list(range(248057 + 1))
    settings = read(tmp_path, "tokenizer_config.json")
    assert vocab[settings["eos_token"]] == 248044


def test_ids_below_256_leave_each_byte_one_of_its_own(tmp_path: Path) -> None:
    # Pixtral's image token is number 10.
    complete(tmp_path, public("pixtral-12b"))
    vocab = vocabulary(tmp_path)
    assert [vocab[text] for text in ("[IMG]", "[IMG_BREAK]", "[IMG_END]")] == [10, 12, 13]
    assert sorted(vocab.values()) == list(range(256 + 3 + 1))


def test_the_largest_image_is_the_published_one(tmp_path: Path) -> None:
    # 16384 tokens of 28 x 28 pixels: what vLLM says of Qwen2-VL; transformers' default is 1280.
    notes = complete(tmp_path, public("Qwen2-VL-2B-Instruct"))
    settings = read(tmp_path, "preprocessor_config.json")
    assert settings["max_pixels"] // (settings["patch_size"] * settings["merge_size"]) ** 2 == 16384
    assert any("settings of Qwen/Qwen2-VL" in note for note in notes)


def test_settings_are_taken_from_the_config(tmp_path: Path) -> None:
    config = public("llava-1.5-7b-hf")
    config["vision_config"]["image_size"] = 448
    complete(tmp_path, config)
    assert read(tmp_path, "preprocessor_config.json")["size"] == {"shortest_edge": 448}
    assert read(tmp_path, "processor_config.json")["patch_size"] == 14


def test_a_frame_has_the_processor_of_its_tower(tmp_path: Path) -> None:
    # Both are model_type "llava".
    for name, kind in (("llava-1.5-7b-hf", "CLIP"), ("pixtral-12b", "Pixtral")):
        folder = tmp_path / name
        folder.mkdir()
        complete(folder, public(name))
        settings = read(folder, "preprocessor_config.json")
        assert settings["image_processor_type"] == f"{kind}ImageProcessor"


def test_the_models_own_files_are_used(tmp_path: Path) -> None:
    for name in ("preprocessor_config.json", "tokenizer.json"):
        (tmp_path / name).write_text("its own")
    assert not any("made up" in note for note in complete(tmp_path, public("gemma-3-4b-it")))
    assert (tmp_path / "preprocessor_config.json").read_text() == "its own"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "preprocessor_config.json",
        "tokenizer.json",
    ]


def test_a_text_model_has_a_tokenizer_only(tmp_path: Path) -> None:
    (note,) = complete(tmp_path, public("bge-base-en-v1.5"))
    assert note.startswith("the tokenizer is made up")
    assert not (tmp_path / "preprocessor_config.json").exists()


def test_a_type_that_is_not_known_says_so(tmp_path: Path) -> None:
    config = {"model_type": "newvl", "vision_config": {}, "image_token_id": 300}
    notes = complete(tmp_path, config)
    assert "newvl" in notes[0]
    assert read(tmp_path, "preprocessor_config.json") == {}
    assert vocabulary(tmp_path)["<image>"] == 300


@pytest.mark.parametrize("name", ["gemma-3-1b-it", "Qwen3-8B", "bge-base-en-v1.5", "gpt2"])
def test_text_models_are_not_multimodal(name: str) -> None:
    assert not is_multimodal(public(name))
