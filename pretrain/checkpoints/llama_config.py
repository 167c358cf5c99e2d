"""Whether a Llama-format checkpoint fits the recipe's model, from its config.json alone. No torch.

Contract: what differs between Llama and this model (biases, rope scaling, another activation), and shapes that the
recipe does not have, are refused by the name of their key. Costs one small file, so it is asked before anything long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.schema import Model
from twofold.errors import Problem, UserError, user_error
from twofold.files import read_json

FIXED_KEYS = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0}


def shape_keys(cfg: Model) -> dict[str, Any]:
    """Keys of config.json that a model's shape decides."""
    return {
        "hidden_size": cfg.d_model,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_kv_heads,
        "head_dim": cfg.d_head,
        "intermediate_size": cfg.d_ff,
        "rms_norm_eps": cfg.norm_eps,
    }


_RECIPE_KEYS = {
    "hidden_size": "model.d_model",
    "num_hidden_layers": "model.n_layers",
    "num_attention_heads": "model.n_heads",
    "num_key_value_heads": "model.n_kv_heads",
    "head_dim": "model.d_model / model.n_heads",
    "intermediate_size": "model.d_ff",
    "rms_norm_eps": "model.norm_eps",
    "rope_theta": "model.rope_theta",
    "vocab_size": "tokenizer.vocab_size",
}


def checked(folder: Path, cfg: Model, vocab_size: int) -> dict[str, Any]:
    """The checkpoint's config.json; `UserError` with every key that does not fit."""
    config = read_json_of(folder / "config.json")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = {
        "model_type": config.get("model_type"),
        "rope_type": rope.get("rope_type", rope.get("type", "default")),
        "rope_theta": rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
        **{key: config.get(key) for key in (*shape_keys(cfg), "vocab_size")},
        **{key: config.get(key, default) for key, default in FIXED_KEYS.items()},
    }
    if found["num_key_value_heads"] is None:
        found["num_key_value_heads"] = found["num_attention_heads"]
    if found["head_dim"] is None and found["num_attention_heads"]:
        found["head_dim"] = (found["hidden_size"] or 0) // found["num_attention_heads"]
    wanted = {
        "model_type": "llama",
        "rope_type": "default",
        "rope_theta": cfg.rope_theta,
        **shape_keys(cfg),
        "vocab_size": vocab_size,
        **FIXED_KEYS,
    }
    problems = [
        Problem(
            f"{folder}/config.json {key}",
            found[key],
            f"does not fit this model, which needs {value!r}",
            f"set {_RECIPE_KEYS[key]} to it" if key in _RECIPE_KEYS else "start from another checkpoint",
        )
        for key, value in wanted.items()
        if found[key] != value
    ]
    if problems:
        raise UserError(problems)
    return config


def read_json_of(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint; `UserError` if there is none."""
    try:
        value: dict[str, Any] = read_json(path)
        return value
    except (FileNotFoundError, ValueError) as error:
        raise user_error(str(path), None, f"cannot be read ({error})", "name a Llama-format checkpoint") from None
