"""`twofold launch`: a recipe on many hosts, by DeepSpeed's launcher or as a Slurm job.

Contract: with a hostfile this process makes what is missing before training on this machine, checks the hosts,
prints the plain launcher command, and supervises training until it ends. With Slurm it writes and submits the
jobs, and returns: data (where the shards are missing), and training after it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from configs.checks import check_trains
from configs.recipe import load_recipe
from configs.schema import Recipe
from launch import training
from launch.actions.preflight import preflight
from launch.cluster import command_lines, hostfile, slurm_job
from launch.preflight import check_package_roots, check_training_fits
from launch.runner import existing, run_recipe
from launch.stages import stage_named
from twofold.artifacts import partial_dir
from twofold.errors import user_error


def by_hostfile(path: str, overrides: Sequence[str], hosts: Path, check: bool, dry: bool, console: Console) -> None:
    """Train on all hosts of a hostfile."""
    named = hostfile.read(hosts)
    recipe = load_recipe(path, [*overrides, f"launch.hostfile={hosts}", f"launch.nodes={len(named)}"])
    if recipe.launch.launcher != "deepspeed":
        raise user_error(
            "--hostfile",
            str(hosts),
            f"does not go with launch.launcher {recipe.launch.launcher}",
            "use only one of the two",
        )
    check_package_roots()
    check_trains(recipe)
    check_training_fits(recipe)
    training.check_hostfile(recipe)
    if not dry:
        run_recipe(recipe, console, until="shards")
    if "shards" in existing(recipe):
        console.print(f"\n  [dim]{escape(plain_command(recipe))}[/dim]\n", soft_wrap=True)
    elif dry:
        console.print("  the token shards are not built yet, and the command needs their folder")
    if dry:
        return
    if check:
        preflight(recipe, console)
    run_recipe(recipe, console)


def by_slurm(path: str, overrides: Sequence[str], check: bool, dry: bool, console: Console) -> None:
    """Submit the jobs of a recipe."""
    recipe = load_recipe(path, [*overrides, "launch.launcher=srun"])
    check_package_roots()
    check_trains(recipe)
    check_training_fits(recipe)
    words = [str(Path(path).resolve()), *overrides]
    wanted = {"train": slurm_job.training_script(recipe, words, check)}
    if "shards" not in existing(recipe):
        wanted = {"data": slurm_job.data_script(recipe, words), **wanted}
    number: str | None = None
    for kind, script in wanted.items():
        file = slurm_job.write(recipe, kind, script)
        if dry:
            console.print(f"  {file}")
            continue
        before, number = number, slurm_job.submit(file, number)
        console.print(f"  job {number}  {kind}  {file}" + (f"  [dim]after {before}[/dim]" if before else ""))
    console.print(
        f"  `twofold status {recipe.run_dir}` shows its progress; `scancel {number or 'JOB'}` saves and ends it"
    )


def plain_command(recipe: Recipe) -> str:
    """The command that starts the ranks by hand; `twofold run` continues from what it leaves."""
    made = existing(recipe)
    train = stage_named("train", recipe)
    out = partial_dir(Path(recipe.run_dir), train.specify(recipe, made)).resolve()
    out.mkdir(parents=True, exist_ok=True)
    told = training.write_inputs(recipe, made["shards"], made["tokenizer"], out)
    command = command_lines.start_command(recipe, training.MODULE, told, out / training.LOGS_DIR)
    needed = command_lines.environment(recipe, out)
    words = [f"{name}={shlex.quote(needed[name])}" for name in ("PYTHONPATH", "DS_ENV_FILE", "PDSH_SSH_ARGS_APPEND")]
    return " ".join([*words, shlex.join(command)])
