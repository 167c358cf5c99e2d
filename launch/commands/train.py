"""Commands on a training and its checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from launch.commands import Command, training_recipe_of
from twofold.errors import user_error


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--step", type=int, metavar="N", help="default: the newest checkpoint")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--gguf", action="store_true", help="also write model.gguf, for llama.cpp and Ollama")


def _export(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.checkpoints import export

    export(training_recipe_of(options), options.step, options.out, options.gguf, console)


def _branch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="run", type=Path, required=True, metavar="RUN", help="the run_dir to branch from"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--step", type=int, metavar="N", help="from this step's checkpoint (default: the newest)")
    where.add_argument("--phase", metavar="NAME", help="from the end of this phase")


def _branch(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.branch import branch

    recipe = training_recipe_of(options)
    branch(recipe, options.run, options.step, options.phase, console)


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", type=int, required=True, metavar="N", help="number of checkpoints to average")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def _merge(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.checkpoints import merge

    merge(training_recipe_of(options), options.last, options.out, console)


def _resume_test_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=12, metavar="N", help="steps of each phase (12)")
    parser.add_argument("--same-ranks", action="store_true", help="skip the trial that changes the number of ranks")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="also kill a random rank N times")
    parser.add_argument("--seed", type=int, default=0, help="decides when the interruptions happen")


def _resume_test(options: argparse.Namespace, console: Console) -> int:
    from launch.actions.resume_test import resume_test

    if options.steps < 6:
        raise user_error("--steps", options.steps, "leaves no room for interruptions", "use at least 6")
    recipe = training_recipe_of(options)
    passed = resume_test(recipe, console, options.steps, options.seed, options.same_ranks, options.kills)
    return 0 if passed else 1


COMMANDS = (
    Command(
        "export",
        "train",
        "export a checkpoint to a Llama-format folder",
        "twofold export smoke --out model/",
        _export,
        _export_arguments,
    ),
    Command(
        "branch",
        "train",
        "begin a new run from a checkpoint of another one",
        "twofold branch smoke --from runs/smoke --phase general run_dir=runs/smoke-b phases.domain.tokens=90K",
        _branch,
        _branch_arguments,
    ),
    Command(
        "merge",
        "train",
        "average a run's last checkpoints into a Llama-format folder",
        "twofold merge smoke --last 3 --out merged/",
        _merge,
        _merge_arguments,
    ),
    Command(
        "resume-test",
        "train",
        "prove on this machine that an interrupted run loses nothing",
        "twofold resume-test smoke --kills 2",
        _resume_test,
        _resume_test_arguments,
    ),
)
