"""Commands that show, check or clean up what is there."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from launch.commands import Command, recipe_of, training_recipe_of
from launch.terminal import print_json


def _json_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _validate(options: argparse.Namespace, console: Console) -> None:
    from launch.actions import validate

    found = validate.facts(recipe_of(options))
    print_json(found) if options.json else validate.show(found, console)


def _schema(options: argparse.Namespace, console: Console) -> None:
    from configs.json_schema import recipe_schema

    print_json(recipe_schema())


def _completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def _completion(options: argparse.Namespace, console: Console) -> None:
    from launch.cli import new_parser
    from launch.completion import script

    print(script(options.shell, new_parser()), end="")


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the recipe's run_dir")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _status(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.status import status

    status(options.folder, options.json, console)


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "document", metavar="DOC_ID", help="as in the decisions; source/file#index for a rejected record"
    )
    _json_arguments(parser)


def _explain(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.explain import explain

    row = explain(recipe_of(options), options.document, Console(quiet=True) if options.json else console)
    if options.json:
        print_json(row)


def _inspect_batch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--step", type=int, required=True, metavar="N", help="counted from 1, as in the metrics")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _inspect_batch(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.checkpoints import inspect_batch

    inspect_batch(training_recipe_of(options), options.step, options.json, console)


def _verify(options: argparse.Namespace, console: Console) -> None:
    from launch.runner import verify_run

    artifacts = verify_run(recipe_of(options), Console(quiet=True) if options.json else console)
    if options.json:
        print_json({name: artifact.manifest.identity for name, artifact in artifacts.items()})
    else:
        console.print(f"[green]OK[/green]  {len(artifacts)} artifacts" if artifacts else "nothing has been built yet")


def _clean_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="remove them")
    parser.add_argument("--trainings", action="store_true", help="also trainings, after a question")


def _clean(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.clean import clean

    clean(recipe_of(options), options.yes, options.trainings, console)


COMMANDS = (
    Command(
        "validate",
        "inspect",
        "validate a recipe and show what it would train; needs no data or GPU",
        "twofold validate smoke",
        _validate,
        _json_arguments,
    ),
    Command(
        "schema",
        "inspect",
        "print the JSON schema of recipes, with a description of every field, for editors",
        "twofold schema > recipe.schema.json",
        _schema,
        needs_recipe=False,
    ),
    Command(
        "completion",
        "inspect",
        "print a script that completes commands, options and recipes in a shell",
        "source <(twofold completion bash)",
        _completion,
        _completion_arguments,
        needs_recipe=False,
    ),
    Command(
        "status",
        "inspect",
        "show training progress",
        "twofold status runs/smoke",
        _status,
        _status_arguments,
        needs_recipe=False,
    ),
    Command(
        "explain",
        "inspect",
        "show why a document was kept or dropped",
        "twofold explain smoke DOC_ID",
        _explain,
        _explain_arguments,
    ),
    Command(
        "inspect-batch",
        "inspect",
        "list the documents in the batch of a training step",
        "twofold inspect-batch smoke --step 20",
        _inspect_batch,
        _inspect_batch_arguments,
    ),
    Command(
        "verify",
        "inspect",
        "compare every byte of a recipe's artifacts with their manifests",
        "twofold verify smoke",
        _verify,
        _json_arguments,
    ),
    Command(
        "clean",
        "inspect",
        "list artifacts that this recipe no longer uses",
        "twofold clean smoke --yes",
        _clean,
        _clean_arguments,
    ),
)
