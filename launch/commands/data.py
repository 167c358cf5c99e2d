"""Commands on documents: the whole recipe, filtering decisions, classifiers and thresholds."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from launch.commands import Command, recipe_of


def _init_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder for the recipe; made if it does not exist")
    parser.add_argument("--from", dest="documents", type=Path, metavar="FOLDER", help="the documents (default: DIR)")


def _init(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.init import init

    init(options.folder, options.documents or options.folder, console)


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--until", metavar="STAGE", help="stop after this stage")
    parser.add_argument("--fresh", action="store_true", help="set the run's trainings aside and train from step 0")


def _run(options: argparse.Namespace, console: Console) -> None:
    from launch.runner import run_recipe, show_results

    recipe = recipe_of(options)
    show_results(recipe, run_recipe(recipe, console, options.until, options.fresh), console)


def _filter_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="also write the documents that are now kept")


def _filter(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.filter import filter_documents

    filter_documents(recipe_of(options), console, options.keep)


def _data_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="OUT.html", help="default: data_report.html in the run folder")
    parser.add_argument("--sample", type=int, default=5_000, metavar="N", help="most documents on the page (5000)")


def _data_report(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.data_report import write

    recipe = recipe_of(options)
    console.print(f"  {write(recipe, options.out, options.sample)}")


def _train_classifier_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="quality, toxicity or domain (default: all that the recipe has)")
    parser.add_argument("--target-share", type=float, metavar="S", help="show the threshold that keeps this share")
    parser.add_argument("--target-precision", type=float, metavar="P", help="show the threshold of this precision")


def _train_classifier(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.train_classifier import Target, train_classifier

    recipe = recipe_of(options)
    train_classifier(recipe, options.name, Target(options.target_share, options.target_precision), console)


def _tune_thresholds_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--language", required=True, choices=("ko", "en"))
    parser.add_argument(
        "--reference", required=True, metavar="A,B+C", help="sources of good text; join small ones by +"
    )
    parser.add_argument(
        "--drop-share",
        default=[],
        nargs="+",
        metavar="S",
        help="share of each reference that a rule may drop, for all rules or for one: 0.01 words=0.02",
    )
    parser.add_argument(
        "--verdicts",
        type=Path,
        metavar="FILE.tsv",
        help="documents that were read, with columns id and verdict (good or junk): no bound drops the good ones",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="OUT.yaml", help="recipe fragment to write; a plot goes beside it"
    )


def _tune_thresholds(options: argparse.Namespace, console: Console) -> None:
    from configs.recipe import recipe_file
    from launch.actions.tune_thresholds import settings_of, tune_thresholds

    recipe = recipe_of(options)
    settings = settings_of(options.reference, options.drop_share)
    path = recipe_file(options.recipe)
    tune_thresholds(path, recipe, options.language, settings, options.out, console, options.verdicts)
    console.print(f"  {options.out}\n  {options.out.with_suffix('.html')}")


COMMANDS = (
    Command(
        "init",
        "data",
        "look at a folder of documents and write a recipe for them",
        "twofold init my-run --from /data/documents",
        _init,
        _init_arguments,
        needs_recipe=False,
    ),
    Command(
        "run",
        "data",
        "build every stage of a recipe; finished stages are reused",
        "twofold run smoke --until tokenizer",
        _run,
        _run_arguments,
    ),
    Command(
        "filter",
        "data",
        "re-run filtering decisions with new thresholds and show what changes",
        "twofold filter smoke data.rules.ko.words.min=60",
        _filter,
        _filter_arguments,
    ),
    Command(
        "data-report",
        "data",
        "draw the data on one page with adjustable thresholds",
        "twofold data-report smoke --sample 2000",
        _data_report,
        _data_report_arguments,
    ),
    Command(
        "train-classifier",
        "data",
        "train a recipe's classifiers and show their cards",
        "twofold train-classifier smoke --name quality",
        _train_classifier,
        _train_classifier_arguments,
    ),
    Command(
        "tune-thresholds",
        "data",
        "derive a language's thresholds from sources of good text",
        "twofold tune-thresholds my.yaml --language ko --reference books,news --out rules-ko.yaml",
        _tune_thresholds,
        _tune_thresholds_arguments,
    ),
)
