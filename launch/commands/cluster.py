"""Commands for many hosts, and for what a recipe will cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from launch.commands import Command, training_recipe_of


def _launch_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--hostfile", type=Path, metavar="FILE", help="DeepSpeed hostfile: one `HOST slots=8` per line")
    where.add_argument("--slurm", action="store_true", help="write and submit the jobs of launch.slurm")
    parser.add_argument("--dry-run", action="store_true", help="show the command or write the scripts; start nothing")
    parser.add_argument("--no-preflight", action="store_true", help="skip the checks of the hosts")


def _launch(options: argparse.Namespace, console: Console) -> None:
    from configs.recipe import recipe_file
    from launch.actions import launch

    check, dry = not options.no_preflight, options.dry_run
    path = str(recipe_file(options.recipe))
    if options.slurm:
        launch.by_slurm(path, options.overrides, check, dry, console)
    else:
        launch.by_hostfile(path, options.overrides, options.hostfile, check, dry, console)


def _preflight_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hostfile", type=Path, metavar="FILE", help="check these hosts")
    parser.add_argument("--no-dry-run", action="store_true", help="start no ranks")


def _preflight(options: argparse.Namespace, console: Console) -> None:
    from configs.checks import check_trains
    from configs.recipe import load_recipe
    from launch.actions.preflight import preflight
    from launch.cluster import hostfile

    overrides = list(options.overrides)
    if options.hostfile:
        nodes = len(hostfile.read(options.hostfile))
        overrides += [f"launch.hostfile={options.hostfile}", f"launch.nodes={nodes}"]
    recipe = load_recipe(options.recipe, overrides)
    check_trains(recipe)
    preflight(recipe, console, not options.no_dry_run)
    console.print("[green]ready[/green]")


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="OUT.html", help="default: plan.html in the run folder")
    parser.add_argument("--gpus", type=int, metavar="N", help="estimate memory, time and cost on N devices instead")
    parser.add_argument(
        "--gpu", default="h100", metavar="NAME", help="h100, h200, a100, a100-40gb, b200, gb200, mi300x, measured"
    )
    parser.add_argument("--constants", type=Path, metavar="FILE", help="measured constants to use for the estimate")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the estimate as JSON")
    parser.add_argument("--profile-hardware", type=Path, metavar="OUT", help="measure this machine's constants instead")


def _plan(options: argparse.Namespace, console: Console) -> None:
    from launch.actions import gpu_plan
    from launch.actions.plan import plan

    recipe = training_recipe_of(options)
    if options.profile_hardware is not None:
        path = gpu_plan.profile_hardware(recipe, options.profile_hardware, console)
    elif options.gpus is not None:
        path = gpu_plan.gpu_plan(
            recipe, options.gpus, options.gpu, options.constants, options.out, options.json, console
        )
    else:
        path = plan(recipe, options.out, console)
    console.print(f"  {path}")


COMMANDS = (
    Command(
        "launch",
        "cluster",
        "train on many hosts, from a hostfile or as a Slurm job",
        "twofold launch my.yaml --hostfile hosts",
        _launch,
        _launch_arguments,
    ),
    Command(
        "preflight",
        "cluster",
        "check recipe, artifacts, hosts and links, and run one training step",
        "twofold preflight my.yaml --hostfile hosts",
        _preflight,
        _preflight_arguments,
    ),
    Command(
        "plan",
        "cluster",
        "draw tokens, learning rate, batch and mixture by step, or estimate cost; needs no data",
        "twofold plan exaone3_7p8b --gpus 512 --gpu h100",
        _plan,
        _plan_arguments,
    ),
)
