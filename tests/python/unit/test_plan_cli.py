"""``memacct plan``: what it prints, how it ends, and every mistake in one sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from public_models import PUBLIC, write_config
from typer.testing import CliRunner

from memacct.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def told(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code in {0, 1}, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_config(tmp_path / "llama", PUBLIC["Llama-3.1-8B"].config)


def test_it_fits_an_h100(llama: Path) -> None:
    result = run(llama, "--gpu", "h100")
    assert result.exit_code == 0, result.output
    assert "It fits." in result.output
    assert "note:" not in result.output
    assert "KV cache: 131,072 bytes a token on each GPU" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_it_does_not_fit_an_a10_and_each_change_alone_would_do(llama: Path) -> None:
    result = run(llama, "--gpu", "a10")
    assert result.exit_code == 1, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    changes = told(llama, "--gpu", "a10")["changes"]
    options = [change["option"] for change in changes if change["option"]]
    assert [option.split()[0] for option in options] == [
        "--max-model-len",
        "--tensor-parallel-size",
    ]
    for option in options:
        name, value = option.split()
        name = {"--tensor-parallel-size": "--tp"}.get(name, name)
        assert run(llama, "--gpu", "a10", name, value).exit_code == 0


def test_the_largest_length_and_the_least_utilization_are_borders(llama: Path) -> None:
    longest = told(llama, "--gpu", "a10")["longest_tokens"]
    assert run(llama, "--gpu", "a10", "--max-model-len", longest).exit_code == 0
    assert run(llama, "--gpu", "a10", "--max-model-len", longest + 16).exit_code == 1
    least = told(llama, "--gpu", "h100", "--max-model-len", 4096)["smallest_utilization"]
    fits = ("--gpu", "h100", "--max-model-len", 4096, "--utilization")
    assert run(llama, *fits, least).exit_code == 0
    assert run(llama, *fits, round(least - 0.01, 2)).exit_code == 1


def test_json_says_what_is_not_known(tmp_path: Path) -> None:
    config = {"model_type": "unheard_of", "architectures": ["UnheardOf"], "hidden_size": 1024}
    sizes = {"num_hidden_layers": 4, "num_attention_heads": 8, "vocab_size": 1000}
    folder = write_config(tmp_path, config | sizes | {"max_position_embeddings": 2048})
    found = told(folder, "--gpu", "h100")
    assert (found["schema_version"], found["kind"], found["fits"]) == (1, "plan", None)
    assert found["weights"]["bytes"] is None
    assert found["notes"][0].startswith("unheard_of is not a type that was checked")
    assert found["kv_cache"]["bytes"] is None
    assert found["kv_cache"]["token_bytes"] == 4 * 2 * 1024 * 2
    assert told(folder, "--gpu", "h100", "--weights", "2GiB")["fits"] is True


def test_bytes_of_a_log_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = write_config(tmp_path, PUBLIC["Qwen2.5-0.5B"].config)
    found = told(folder, "--gpu", "80GiB", "--kv-cache", 107_618 * 16 * 12_288)
    assert found["kv_cache"]["capacity"]["tokens_count"] == 1_721_888
    assert found["kv_cache"]["low_bytes"] == found["kv_cache"]["high_bytes"]


def test_more_gpus_take_a_part_each(llama: Path) -> None:
    alone, four = (told(llama, "--gpu", "h100", "--tp", tp) for tp in (1, 4))
    assert four["kv_cache"]["token_bytes"] * 4 == alone["kv_cache"]["token_bytes"]
    assert 0.24 < four["weights"]["bytes"] / alone["weights"]["bytes"] < 0.26
    stages = told(llama, "--gpu", "h100", "--pp", 2)
    assert 0.49 < stages["weights"]["bytes"] / alone["weights"]["bytes"] < 0.51


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--gpu", "banana"), "neither 'free' nor one of h100"),
        (("--utilization", "1.5"), "utilization 1.5 is not above 0 and at most 1"),
        (("--kv-dtype", "int2"), "'int2' is not one of auto, bfloat16"),
        (("--block-size", "10"), "block size 10 is not a multiple of 16"),
        (("--tp", "0"), "tensor_parallel_size 0 is not 1 or more"),
        (("--tp", "3"), "32 attention heads cannot be split over 3 GPUs"),
        (("--pp", "99"), "32 layers cannot be 99 pipeline stages"),
        (("--weights", "lots"), "'lots' is not a size"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    llama: Path, arguments: tuple[str, str], sentence: str
) -> None:
    result = run(llama, "--gpu", "h100", *arguments)
    assert result.exit_code == 2
    assert sentence in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "no config.json in it"),
        ("{", "is not JSON"),
        ("[]", "is not a model's config"),
        ('{"model_type": "llama"}', "must be a positive whole number"),
        ('{"model_type": "llama", "num_hidden_layers": "many"}', "num_hidden_layers is 'many'"),
    ],
)
def test_a_wrong_model_is_one_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    result = run(tmp_path, "--gpu", "h100", "--max-model-len", "128")
    assert result.exit_code == 2
    assert sentence in result.output.replace("\n", " ")


def test_a_name_on_a_hub_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("meta-llama/Llama-3.1-8B")
    assert result.exit_code == 2
    assert "models are not downloaded here" in result.output
