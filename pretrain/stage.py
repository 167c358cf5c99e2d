"""What the rest of the house knows of training: identity, exit codes, files. No torch.

    metrics.jsonl                 one JSON object a line; see monitor.py
    weights/<phase>.safetensors   float32 master weights at each phase's end, Llama's parameter names
    checkpoints/step-00000100/    training state; see checkpoint.py
    summary.json                  counts for the manifest; exists exactly when training is complete
    error.json                    {"problems": [...]}: what the user can mend, beside exit code 2
"""

from __future__ import annotations

from typing import Any

from configs.schema import Recipe

CODE_VERSION: int = 1

EXIT_CODE_STOPPED = 75
"""Stopped on a signal with its state saved; run again to go on (sysexits.h: EX_TEMPFAIL)."""

WEIGHTS_DIR = "weights"
CHECKPOINTS_DIR = "checkpoints"
SUMMARY_FILE = "summary.json"
ERROR_FILE = "error.json"


def config(recipe: Recipe) -> dict[str, Any]:
    """What decides the trained weights, and nothing else: not cadences, monitoring, launch or export.

    The engine's micro-batch counts, since it decides the order of float sums.
    """
    whole = recipe.model_dump(mode="json")
    engine = {key: whole["engine"][key] for key in ("precision", "micro_batch_sequences")}
    sections = {key: whole[key] for key in ("seed", "model", "phases", "optimizer")}
    return {**sections, "engine": engine, "vocab_size": recipe.tokenizer.vocab_size}


def weights_file(phase: str) -> str:
    """Path of a phase's weights, relative to the artifact."""
    return f"{WEIGHTS_DIR}/{phase}.safetensors"
