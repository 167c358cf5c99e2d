"""Checks of the machine and the file system before anything long begins.

Contract: takes seconds and no GPU work; raises `UserError`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.checks import batch_problem
from configs.schema import Recipe
from launch import terminal
from launch.main import ROOT, namesake
from pretrain.checkpoints import llama_config
from pretrain.engine.ds_config import deepspeed_config
from pretrain.engine.ds_lint import lint
from twofold import lease
from twofold.artifacts import digest
from twofold.errors import UserError, user_error
from twofold.files import HASHES_FILE, remembered_sha256


def check_package_roots() -> None:
    """All our package names, which are generic, must resolve to this installation."""
    if found := namesake():
        raise user_error(
            f"package {found[0]}",
            found[1],
            f"does not come from {ROOT}",
            f"uninstall the package that shadows it, or run from {ROOT} with its own environment",
        )


def visible_gpus() -> int:
    """Number of NVIDIA GPUs that this process may use, without initializing CUDA."""
    masked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if masked is not None:
        return len([device for device in masked.split(",") if device.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def choose_device(recipe: Recipe) -> tuple[str, int]:
    """(`cuda` or `cpu`, ranks per node) that training will use on this machine."""
    launch = recipe.launch
    gpus = visible_gpus() if launch.device != "cpu" else 0
    if launch.device == "cuda":
        here = launch.nodes == 1 and launch.hostfile is None and launch.launcher == "deepspeed"
        if here and gpus < launch.gpus_per_node:
            raise user_error(
                "launch.gpus_per_node",
                launch.gpus_per_node,
                f"is more than the {gpus} GPUs of this machine",
                f"override launch.gpus_per_node={gpus or 1} (without GPUs, launch.device=cpu), or use another machine",
            )
        return "cuda", launch.gpus_per_node
    if gpus:
        return "cuda", min(gpus, launch.gpus_per_node)
    return "cpu", launch.cpu_ranks


def check_training_fits(recipe: Recipe) -> None:
    """Check that imported weights fit, that batches divide over the ranks, and that DeepSpeed's settings are safe."""
    check_start_from(recipe)
    device, ranks_per_node = choose_device(recipe)
    ranks = ranks_per_node * recipe.launch.nodes
    config = deepspeed_config(recipe, ranks, device)
    if errors := lint(config, recipe.engine.deepspeed).errors:
        raise UserError(errors)
    found = [
        problem
        for phase in recipe.phases
        if (problem := batch_problem(recipe, phase, ranks, f"phases.{phase.name}.global_batch_size"))
    ]
    if found:
        raise UserError(found)
    if recipe.launch.nodes > 1 and recipe.launch.hostfile is None and recipe.launch.launcher == "deepspeed":
        raise user_error(
            "launch.hostfile",
            None,
            f"is needed to start {recipe.launch.nodes} nodes",
            "name a DeepSpeed hostfile (one `HOST slots=8` per line), or start with `twofold launch RECIPE --slurm`",
        )


def check_start_from(recipe: Recipe) -> None:
    """Check that the weights of `model.start_from` fit the model, which training would find out days later."""
    if recipe.model.start_from is not None:
        llama_config.checked(_llama_folder(recipe.model.start_from), recipe.model, recipe.tokenizer.vocab_size)


def fingerprint_checkpoint(folder: str, run_dir: Path) -> str:
    """Identity of an imported checkpoint: the contents of its files; hashes are remembered in the run folder."""
    path = _llama_folder(folder)
    files = sorted(path.glob("*.safetensors"))
    found = remembered_sha256(files, run_dir / HASHES_FILE)
    hashes = [[file.name, sha256] for file, sha256 in zip(files, found, strict=True)]
    return digest([hashes, (path / "config.json").read_text(encoding="utf-8")])


def _llama_folder(folder: str) -> Path:
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise user_error(
            "model.start_from",
            folder,
            "is not a Llama-format checkpoint (no config.json)",
            "name the folder that holds config.json and *.safetensors",
        )
    return path


@contextmanager
def only_run(run_dir: Path) -> Iterator[None]:
    """Hold the run folder's lock, so that two runs never build the same artifact at once."""
    with lease.hold(run_dir / ".lock", "run_dir", run_dir, terminal.ERRORS.print):
        yield
