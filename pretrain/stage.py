"""What the rest of the house knows of training: identity, exit codes, files. No torch.

metrics.jsonl                 one JSON object a line; see monitor.py
ledger.json                   tokens by phase and source, and those without effect, as of the newest checkpoint
incidents/                    skipped steps and rollbacks with their documents; see incidents.py
weights/<phase>.safetensors   float32 master weights at each phase's end, Llama's parameter names
checkpoints/step-00000100/    training state; see checkpoint.py
summary.json                  counts for the manifest; exists exactly when training is complete
error.json                    {"problems": [...]}: what the user can mend, beside exit code 2
"""

from __future__ import annotations

from typing import Any

from configs.schema import Recipe

CODE_VERSION: int = 2

EXIT_CODE_STOPPED = 75
"""Stopped on a signal with its state saved; run again to go on (sysexits.h: EX_TEMPFAIL)."""

WEIGHTS_DIR = "weights"
CHECKPOINTS_DIR = "checkpoints"
INCIDENTS_DIR = "incidents"
LEDGER_FILE = "ledger.json"
SUMMARY_FILE = "summary.json"
ERROR_FILE = "error.json"


def config(recipe: Recipe) -> dict[str, Any]:
    """What decides the trained weights, and nothing else: not cadences, limits, monitoring, launch or export.

    The engine's micro-batch counts, since it decides the order of float sums. What `start_from` holds
    counts too, but a path does not say it: its fingerprint is an input of the stage.
    """
    return {
        "seed": recipe.seed,
        "vocab_size": recipe.tokenizer.vocab_size,
        "model": recipe.model.model_dump(mode="json", exclude={"start_from"}),
        "phases": [phase.model_dump(mode="json", exclude={"max_epochs", "replay"}) for phase in recipe.phases],
        "optimizer": recipe.optimizer.model_dump(mode="json"),
        "stability": recipe.stability.model_dump(mode="json"),
        "engine": recipe.engine.model_dump(mode="json", include={"precision", "micro_batch_sequences"}),
    }


def weights_file(phase: str) -> str:
    """Path of a phase's weights, relative to the artifact."""
    return f"{WEIGHTS_DIR}/{phase}.safetensors"
