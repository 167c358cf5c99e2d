"""What other packages know of training: what identifies it, and its files. No torch.

metrics.jsonl                 one JSON object per line; see hooks/metrics.py
token_counts.json             tokens by phase and source, and those of skipped steps, as of the newest checkpoint
incidents/                    skipped steps and rollbacks with their documents; see hooks/incidents.py
weights/<phase>.safetensors   float32 master weights at the end of each phase, with Llama's parameter names
checkpoints/step-00000100/    training state; see checkpoints/checkpoint.py
summary.json                  counts for the manifest; exists exactly when training is complete
error.json                    {"problems": [...]}: what the user can fix, along with exit code 2
times/                        where the time of each start went; see goodput.py
beats/, stalls/               heartbeat of each rank; stacks and verdict of a hang; see hooks/watchdog.py
.trainer, .supervisor         leases (twofold/lease.py) of the first rank and of the process that started the ranks
.environment.json             variables of launch.environment_from for ranks on other hosts, while they run
stop                          created by anyone: training finishes its step, saves, and ends with EXIT_CODE_STOPPED
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from configs.schema import Recipe
from twofold.errors import UserError
from twofold.files import write_json

CODE_VERSION: int = 2

WEIGHTS_DIR = "weights"
CHECKPOINTS_DIR = "checkpoints"
INCIDENTS_DIR = "incidents"
BEATS_DIR = "beats"
STALLS_DIR = "stalls"
TOKEN_COUNTS_FILE = "token_counts.json"
SUMMARY_FILE = "summary.json"
ERROR_FILE = "error.json"
STOP_FILE = "stop"
ENVIRONMENT_FILE = ".environment.json"
TRAINER_LEASE = ".trainer"
SUPERVISOR_LEASE = ".supervisor"
DRY_RUN_FILE = "dry_run.json"
_ENGINE = {"precision", "float8", "deepspeed"}
_NO_WEIGHTS = {"max_epochs", "replay"}
"""Fields of a phase that only limit or abbreviate others."""


def config(recipe: Recipe) -> dict[str, Any]:
    """What determines the trained weights, and nothing else: not cadences, limits, monitoring, launch or export.

    The contents of `start_from` belong to it as well, but its path does not tell them: their fingerprint is an input
    of the stage. A changed plan is another artifact; checkpoints/past.py says when it goes on from this one.
    """
    return {
        **past(recipe),
        "stability": recipe.stability.model_dump(mode="json"),
        "micro_batch_size": recipe.engine.micro_batch_size,  # decides the order of float sums
        "sources": [list(phase.mixture) for phase in recipe.phases],  # their order decides that of the data
    }


def past(recipe: Recipe) -> dict[str, Any]:
    """What decided the weights of every step so far, by section; of `phases`, only what has begun (see past.py)."""
    return {
        "seed": recipe.seed,
        "vocab_size": recipe.tokenizer.vocab_size,
        "model": recipe.model.model_dump(mode="json", exclude={"start_from"}),
        "phases": [phase.model_dump(mode="json", exclude=_NO_WEIGHTS) for phase in recipe.phases],
        "optimizer": recipe.optimizer.model_dump(mode="json"),
        "engine": recipe.engine.model_dump(mode="json", include=_ENGINE),
    }


def weights_file(phase: str) -> str:
    """Path of a phase's weights, relative to the artifact."""
    return f"{WEIGHTS_DIR}/{phase}.safetensors"


def write_error(out: Path, error: UserError) -> None:
    """Write the problems where the launcher looks for them, and to the rank's log."""
    print(error, file=sys.stderr)
    with contextlib.suppress(UserError):  # the disk may be what is full
        write_json(out / ERROR_FILE, {"problems": error.as_json()})
