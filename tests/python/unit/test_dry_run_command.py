"""A command line is taken apart as vLLM would read it; what is none is told in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memacct import ConfigError
from memacct.dry_run.command import parse_command
from memacct.dry_run.dryrun import dryrun
from memacct.dry_run.engine_process import ENGINE_SIDE, engine_environ
from memacct.dry_run.engine_python import about, find_python
from memacct.dry_run.model_folder import find_model, make_folder
from memacct.dry_run.neighbours import parse_neighbour

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "eos_token_id": 2,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "Llama-Tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return folder


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("vllm serve M --max-model-len 10", "M", ("--max-model-len", "10")),
        ("/opt/venv/bin/vllm serve M -tp 2", "M", ("-tp", "2")),
        ("vllm serve --model M --enforce-eager", "M", ("--enforce-eager",)),
        ("vllm serve --dtype half --model=M", "M", ("--dtype", "half")),
        ("python -m vllm.entrypoints.openai.api_server --model M", "M", ()),
        ("python3.12 -m vllm.entrypoints.openai.api_server --model M -q fp8", "M", ("-q", "fp8")),
        ("python -m vllm.entrypoints.cli.main serve M", "M", ()),
        ("M --seed 3", "M", ("--seed", "3")),
        ("vllm serve 'a folder/M' --served-model-name 'my model'", "a folder/M",
         ("--served-model-name", "my model")),
    ],
)  # fmt: skip
def test_every_way_to_say_it(text: str, name: str, arguments: tuple[str, ...]) -> None:
    command = parse_command(text)
    assert (command.model, command.arguments, command.environ) == (name, arguments, {})


def test_variables_before_the_command() -> None:
    command = parse_command(["VLLM_USE_V2_MODEL_RUNNER=0", "A=b=c", "vllm", "serve", "M"])
    assert command.environ == {"VLLM_USE_V2_MODEL_RUNNER": "0", "A": "b=c"}
    assert parse_command("env A=1 vllm serve M").environ == {"A": "1"}


def test_the_interpreter_that_a_command_names() -> None:
    module = "-m vllm.entrypoints.openai.api_server --model M"
    assert parse_command(f"/opt/venv/bin/python {module}").python == "/opt/venv/bin/python"
    assert parse_command(f"python {module}").python is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no engine"),
        ("A=1", "no engine"),
        ("vllm", "only `vllm serve`"),
        ("vllm bench throughput", "vllm bench"),
        ("vllm serve", "no model"),
        ("vllm serve --max-model-len 10", "no model"),
        ("python server.py", "python server.py"),
    ],
)
def test_what_is_no_server(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_command(text)
    assert "\n" not in str(caught.value)


def test_a_model_is_its_folder_or_its_config(model: Path) -> None:
    assert find_model(str(model)) == model
    assert find_model(str(model / "config.json")) == model / "config.json"


def test_a_name_is_found_in_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HOME", raising=False)
    with pytest.raises(ConfigError, match="org/name.*local Hugging Face cache.*config.json"):
        find_model("org/name")
    repository = tmp_path / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / "abc").symlink_to(model)
    assert find_model("org/name") == repository / "snapshots" / "abc"


def test_what_is_no_model(tmp_path: Path) -> None:
    for text, said in ((f"{tmp_path}/none", "no such model"), (str(tmp_path), "no config.json")):
        with pytest.raises(ConfigError, match=said):
            find_model(text)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        find_model(str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match="these are weights"):
        find_model(f"{tmp_path}/model.gguf")
    (tmp_path / "folder" / "config.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        find_model(f"{tmp_path}/folder")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ConfigError, match="no JSON object"):
        find_model(str(tmp_path))


def test_the_engine_gets_the_files_with_heads_and_no_other_weights(
    model: Path, tmp_path: Path
) -> None:
    (model / "model.safetensors").write_bytes(bytes(900))
    (model / "pytorch_model.bin").write_bytes(bytes(100))
    (model / "model.safetensors.index.json").write_text("{}")
    (model / "generation_config.json").write_text("{}")
    made = make_folder(model, (), tmp_path)
    there = {path.name for path in made.folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= there
    assert "pytorch_model.bin" not in there
    assert made.folder.name == "Llama-Tiny"
    assert made.options == ("--load-format", "dummy")
    assert made.checkpoint_bytes == 1000


def test_of_a_file_there_is_only_the_config(model: Path, tmp_path: Path) -> None:
    made = make_folder(model / "config.json", ("--load-format=dummy",), tmp_path)
    assert made.folder.name == "Llama-Tiny"
    assert json.loads((made.folder / "config.json").read_text()) == LLAMA
    assert made.options == ()
    assert made.checkpoint_bytes is None


def test_without_files_gptq_is_said_of_all_layers(model: Path, tmp_path: Path) -> None:
    """An engine looks into the files for what is quantised, and finds nothing where none are."""
    scheme = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
    path = model / "config.json"
    path.write_text(json.dumps({**LLAMA, "quantization_config": scheme}))
    given = path.read_text()
    made = make_folder(model, (), tmp_path / "without")
    told = json.loads((made.folder / "config.json").read_text())["quantization_config"]
    assert told == {**scheme, "modules_in_block_to_quantize": [[".layers.", ".h."]]}
    assert any("GPTQ" in note for note in made.notes)
    (model / "model.safetensors").write_bytes(bytes(900))
    made = make_folder(model, (), tmp_path / "with")
    assert (made.folder / "config.json").read_text() == given
    assert not any("GPTQ" in note for note in made.notes)
    assert path.read_text() == given, "the user's own file is as it was"


def test_an_interpreter_without_vllm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--python: /none/python is no interpreter"):
        find_python("/none/python")
    with pytest.raises(ConfigError, match="has no vLLM"):
        about(Path(sys.executable))
    monkeypatch.delenv("MEMACCT_ENGINE_PYTHON", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="neither on PATH nor in memacct's own Python"):
        find_python()


@pytest.mark.parametrize(
    "text",
    [
        "#!{python}\n",
        "#!{python} -I\n",
        "#!/usr/bin/env {python}\n",
        # pip's and uv's, where the path is too long for a first line or has a space.
        "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
        "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''\n",
    ],
)
def test_the_interpreter_of_the_vllm_on_path(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "vllm"
    script.write_text(text.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.delenv("MEMACCT_ENGINE_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_python() == Path(sys.executable)


def test_a_vllm_that_is_no_pythons_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "vllm"
    script.write_text("#!/bin/sh\nexec docker run vllm\n")
    script.chmod(0o755)
    monkeypatch.delenv("MEMACCT_ENGINE_PYTHON", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(ConfigError, match="neither on PATH nor"):
        find_python()


def test_an_open_quote() -> None:
    with pytest.raises(ConfigError, match="cannot be taken apart: No closing quotation"):
        parse_command("vllm serve 'x")


def test_a_card_that_nobody_knows(model: Path) -> None:
    with pytest.raises(ConfigError, match="h1000"):
        dryrun(f"vllm serve {model}", gpu="h1000")


def test_one_sentence_and_status_2_on_the_command_line(model: Path) -> None:
    words = ["--gpu", "h1000", "--", "vllm", "serve", str(model)]
    command = [sys.executable, "-m", "memacct", "dryrun", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "h1000" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_the_engines_environment(tmp_path: Path) -> None:
    base = {"PATH": "/bin", "VLLM_USE_V1": "0", "PYTHONPATH": "/theirs", "MEMACCT_VLLM": "1"}
    own = {"VLLM_PLUGINS": "mine", "VLLM_NO_USAGE_STATS": "0"}
    made = engine_environ(base, own, tmp_path, Path("/status"))
    assert made["PYTHONPATH"] == f"{ENGINE_SIDE}:{tmp_path}/plugin:/theirs"
    # What the user gave before the command wins, and hides neither the hooks nor what they read.
    assert made["VLLM_NO_USAGE_STATS"] == "0"
    assert made["VLLM_PLUGINS"] == "mine,memacct_dryrun"
    assert "MEMACCT_VLLM" not in made
    # Exported variables of vLLM are in the request, which decides.
    assert "VLLM_USE_V1" not in made


def test_a_neighbour_that_is_no_size() -> None:
    with pytest.raises(ConfigError, match="--neighbour 'much' is no size such as 12GiB"):
        parse_neighbour("much")
    assert parse_neighbour("12GiB") == 12 << 30
