"""What a model's engine reads besides config.json: a tokenizer, and a multimodal processor.

Both are made up where the model's folder does not have them. Of the tokenizer only the special
tokens matter at start, and their ids are config.json's; of the processor everything does: how many
tokens the largest image takes, so that the encoder is profiled as with the model's own. Its
settings are those that were published with a model of that type (``processors.json``).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SETTINGS = Path(__file__).with_name("processors.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_ENDS = ("<|im_end|>", "<|eot|>", "<|endoftext|>")
_TOWERS = ("vision_config", "audio_config", "thinker_config", "vision_tower", "audio_encoder")


def complete(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Writes a tokenizer and a processor into the folder if it needs them and has none.

    Args:
        folder: where the engine looks; its files are left as they are.
        config: its config.json.

    Returns:
        What was made up, a sentence each, for people.
    """
    kit = _kit(config)
    several = kit is not None or is_multimodal(config)
    notes = []
    if several and not _has(folder, _PROCESSORS):
        notes.append(_write_processor(folder, config, kit))
    if not _has(folder, _TOKENIZERS):
        _write_tokenizer(folder, config, kit)
        notes.append("the tokenizer is made up: only its special tokens are the model's")
    if several:
        notes.append("of the encoder's convolutions cuDNN's workspace is not counted")
    return tuple(notes)


def is_multimodal(config: Mapping[str, Any]) -> bool:
    """Whether the model takes more than text: an engine then needs its processor to start."""
    return _kit(config) is not None or any(name in config for name in _TOWERS)


@cache
def _settings() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(_SETTINGS.read_text())
    return raw


def _kit(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    # "llava" is a frame around several towers, whose processors differ.
    kind = str(config.get("model_type", ""))
    tower = config.get("vision_config")
    tower_kind = tower.get("model_type", "") if isinstance(tower, dict) else ""
    known = _settings()
    kind = known["same_as"].get(kind, kind)
    kit = known.get(f"{kind}+{tower_kind}", known.get(kind))
    return kit if isinstance(kit, dict) and "files" in kit else None


def _has(folder: Path, names: Iterable[str]) -> bool:
    return any((folder / name).exists() for name in names)


def _write_processor(folder: Path, config: Mapping[str, Any], kit: Mapping[str, Any] | None) -> str:
    if kit is None:
        # The engine's transformers knows the classes by the model's type, and their defaults.
        (folder / "preprocessor_config.json").write_text("{}")
        kind = config.get("model_type")
        return (
            f"no processor of model type {kind} is published with memacct: the engine's own"
            " defaults are used, so its largest image may differ from the model's"
        )
    for name, settings in kit["files"].items():
        (folder / name).write_text(json.dumps(_filled(settings, config)))
    return f"the processor is made up, with the settings of {kit['model']}"


def _filled(value: Any, config: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        filled = {name: _filled(item, config) for name, item in value.items()}
        # A setting that config.json does not have is left to the processor's default.
        return {name: item for name, item in filled.items() if item is not None}
    if isinstance(value, str) and value.startswith("$"):
        return _find(config, value[1:])
    return value


def _find(config: Mapping[str, Any], path: str) -> Any:
    found: Any = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _special_tokens(config: Mapping[str, Any], kit: Mapping[str, Any] | None) -> dict[str, int]:
    # By text; an id that config.json does not tell is the published one.
    if kit is not None:
        told = {text: (_find(config, path), usual) for path, (text, usual) in kit["tokens"].items()}
        return {text: at if isinstance(at, int) else usual for text, (at, usual) in told.items()}
    kinds = ("image", "video", "audio")
    found = {
        f"<{kind}>": config.get(f"{kind}_token_id", config.get(f"{kind}_token_index"))
        for kind in kinds
    }
    return {text: at for text, at in found.items() if isinstance(at, int)}


def _write_tokenizer(
    folder: Path, config: Mapping[str, Any], kit: Mapping[str, Any] | None
) -> None:
    special = _special_tokens(config, kit)
    (folder / "tokenizer.json").write_text(json.dumps(_byte_tokenizer(special)))
    end = next((text for text in _ENDS if text in special), "<|end|>")
    settings: dict[str, Any] = {
        "tokenizer_class": kit["tokenizer_class"] if kit else "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": "<|end|>",
        "unk_token": "<|end|>",
        "clean_up_tokenization_spaces": False,
    }
    if kit is not None and "named" in kit:
        settings["extra_special_tokens"] = kit["named"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _byte_tokenizer(special: Mapping[str, int]) -> dict[str, Any]:
    """A tokenizer of single bytes; its special tokens have their ids in the vocabulary."""
    # The byte-level alphabet of GPT-2: bytes that do not print are moved above 255.
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in shown] + [chr(256 + i) for i in range(256 - len(shown))]
    vocabulary = dict(special)
    taken = set(special.values())
    free = (number for number in range(2 * len(letters) + len(taken)) if number not in taken)
    for text in [*letters, "<|end|>"]:
        vocabulary[text] = next(free)
    # Without holes: the tokenizers library would name each of them in a warning.
    held = set(vocabulary.values())
    vocabulary |= {f"<{number}>": number for number in range(max(held)) if number not in held}
    added = [
        {"id": vocabulary[text], "content": text, "special": True, "normalized": False}
        | {"single_word": False, "lstrip": False, "rstrip": False}
        for text in (*special, "<|end|>")
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
