"""A model with fewer layers: its config.json its lists of layers shortened too."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parent / "models"
_COUNTS = ("num_hidden_layers", "n_layer", "decoder_layers", "encoder_layers", "max_window_layers")
_LISTS = ("layer_types", "hybrid_override_pattern")


def read_public(name: str) -> dict[str, Any]:
    """The config.json of one of the models here."""
    config: dict[str, Any] = json.loads((MODELS / name / "config.json").read_text())
    return config


def cut(config: dict[str, Any], layers_count: int) -> dict[str, Any]:
    """The same model with at most so many layers in its text part; towers stay whole."""
    short = copy.deepcopy(config)
    text = short.get("text_config", short)
    text.setdefault("num_hidden_layers" if text is not short else "_", layers_count)
    short.pop("_", None)
    for name in _COUNTS:
        if name in text:
            text[name] = min(text[name], layers_count)
    for name in _LISTS:
        if name in text:
            text[name] = text[name][:layers_count]
    if "first_k_dense_replace" in text:  # at least one layer has experts
        text["first_k_dense_replace"] = min(text["first_k_dense_replace"], layers_count - 1)
    if "attn_layer_indices" in text:
        text["attn_layer_indices"] = [i for i in text["attn_layer_indices"] if i < layers_count]
    return short


def write_model(folder: Path, name: str, layers_count: int | None = None) -> Path:
    """Writes the model's config.json, cut if told so; returns its folder."""
    config = read_public(name)
    folder.mkdir(parents=True, exist_ok=True)
    short = config if layers_count is None else cut(config, layers_count)
    (folder / "config.json").write_text(json.dumps(short, indent=1))
    return folder
