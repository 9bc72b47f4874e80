"""The folder that the engine is given: what is there of the model, nothing made up but weights."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct.dry_run.arguments import is_given, value_of
from memacct.dry_run.processor import complete

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How the names of weights' files end.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
# An engine reads these files' headers even where it makes the weights up: which layers are
# quantised. The others say nothing to it that it is to know.
_WITH_HEADERS = ".safetensors"
# GPTQ quantises the matrices of the layers; it is by files alone that an engine knows of them.
_LAYERS = (".layers.", ".h.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """What the engine gets.

    Attributes:
        folder: holds config.json and links to what else is there, weights left out.
        options: what is added to the engine's own.
        checkpoint_bytes: of the weights' files; None: there are none here.
        notes: what was made up besides weights, for people.
    """

    folder: Path
    options: tuple[str, ...]
    checkpoint_bytes: int | None
    notes: tuple[str, ...] = ()


def find_model(text: str) -> Path:
    """The model's folder or its config.json.

    Args:
        text: a path, or a name as on Hugging Face whose snapshot is in the local cache.

    Raises:
        ConfigError: there is none, or it has no config.json that can be read.
    """
    path = Path(text).expanduser()
    if not path.exists():
        cached = _cached(text)
        if cached is None:
            raise ConfigError(f"{text}: {_absent(text)}")
        path = cached
    config = path / "config.json" if path.is_dir() else path
    if not config.exists():
        raise ConfigError(f"{text}: no config.json in this folder")
    if config.name.endswith(WEIGHTS):
        raise ConfigError(f"{text}: these are weights: give the folder with config.json, or that")
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{config} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{config}: no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{config}: no JSON object")
    return Path(os.path.abspath(path))  # noqa: PTH100 (links in a cache name what they point to)


def _absent(text: str) -> str:
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return (
            "not in the local Hugging Face cache, and nothing is downloaded: give a folder with "
            "the model's config.json, or the file"
        )
    return "no such model: give its folder, or its config.json"


def _cached(name: str) -> Path | None:
    """The snapshot of a name's main branch in the local cache of huggingface_hub."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
    repository = hub / f"models--{name.replace('/', '--')}"
    reference = repository / "refs" / "main"
    if not reference.exists():
        return None
    snapshot = repository / "snapshots" / reference.read_text().strip()
    return snapshot if snapshot.is_dir() else None


def make_folder(model: Path, arguments: Sequence[str], where: Path) -> ModelFolder:
    """Makes the folder that stands for `model`, below `where`.

    The folder keeps the model's name: an engine tells it in its answers.
    """
    named = model.parent if model.name == "config.json" else model.with_suffix("")
    folder = where / "model" / ((named if model.is_file() else model).name or "model")
    folder.mkdir(parents=True)
    files = [model] if model.is_file() else sorted(model.iterdir())
    sizes = 0
    for file in files:
        if file.name.endswith(WEIGHTS):
            sizes += file.stat().st_size
            if not file.name.endswith(_WITH_HEADERS):
                continue
        target = "config.json" if model.is_file() else file.name
        (folder / target).symlink_to(file.resolve())
    made_up: tuple[str, ...] = ()
    if not is_given(arguments, "--skip-tokenizer-init") and not is_given(arguments, "--tokenizer"):
        made_up = complete(folder, json.loads((folder / "config.json").read_text()))
    made_up += _say_what_is_quantised(folder)
    return ModelFolder(
        folder=folder,
        options=_options(arguments),
        checkpoint_bytes=sizes or None,
        notes=made_up,
    )


def _say_what_is_quantised(folder: Path) -> tuple[str, ...]:
    """Completes the config of a GPTQ model without files, which would count as not quantised."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    scheme = config.get("quantization_config")
    if not isinstance(scheme, dict) or scheme.get("quant_method") != "gptq":
        return ()
    if scheme.get("modules_in_block_to_quantize") or any(folder.glob(f"*{_WITH_HEADERS}")):
        return ()
    scheme["modules_in_block_to_quantize"] = [list(_LAYERS)]
    path.unlink()  # a link to the model's own
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return ("which matrices GPTQ left as they were is not known without files: none of a layer",)


def _options(arguments: Sequence[str]) -> tuple[str, ...]:
    return () if value_of(arguments, "--load-format") == "dummy" else ("--load-format", "dummy")
