"""`twofold`: the command line.

Contract: exit code 0 when done, 2 with one line a problem for anything that the user can fix (never
a traceback), 75 when training was interrupted after saving, 1 when the trainer failed by itself.
Heavy packages are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from configs.recipe import load_recipe
from configs.units import format_bytes
from launch.outcomes import Interrupted, TrainingFailed
from twofold import VERSION
from twofold.artifacts import Artifact
from twofold.errors import UserError, user_error
from twofold.exit_codes import EXIT_CODE_FAILED, EXIT_CODE_KEYBOARD, EXIT_CODE_STOPPED, EXIT_CODE_USER_ERROR
from twofold.files import as_user_error

_CONSOLE = Console(highlight=False)
_ERRORS = Console(stderr=True, highlight=False)
_RENAMED = {
    "why": "explain",
    "check": "validate",
    "verify-resume": "resume-test",
    "average": "merge",
    "trace": "inspect-batch",
    "pack": "tokenize",
    "calibrate": "tune-thresholds",
    "decide": "filter",
}
"""Command by its old name -> its new one. The old `tokenize`, now `inspect-tokens`, gave its name to `pack`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        options = _options(arguments)
        return int(options.command(options))
    except UserError as error:
        return _report(error)
    except OSError as error:
        refused = as_user_error(error)
        if refused is None:
            raise
        return _report(refused)
    except Interrupted as stop:
        _ERRORS.print(f"[yellow]interrupted[/yellow]: {escape(str(stop))}")
        return EXIT_CODE_STOPPED
    except TrainingFailed as failure:
        _ERRORS.print(f"[bold red]training failed[/bold red]\n{escape(str(failure))}")
        return EXIT_CODE_FAILED
    except KeyboardInterrupt:
        _ERRORS.print("[yellow]interrupted[/yellow]: finished stages are kept; run the same command to go on")
        return EXIT_CODE_KEYBOARD


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parsed arguments; overrides may stand before and after options, which argparse alone refuses."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in _RENAMED:
        raise user_error(f"twofold {words[0]}", None, "renamed", f"use twofold {_RENAMED[words[0]]}")
    parser = _parser()
    options, rest = parser.parse_known_args(words)
    if any(word.startswith("-") or "=" not in word for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def _report(error: UserError) -> int:
    for problem in error.problems:
        _ERRORS.print(f"[bold red]error[/bold red]: {escape(str(problem))}", soft_wrap=True)
    return EXIT_CODE_USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="twofold", description="Raw documents to an exported two-phase model.")
    parser.add_argument("--version", action="version", version=f"twofold {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = _command(commands, "run", _run, "make every stage of a recipe (finished ones are reused)")
    run.add_argument("--until", metavar="STAGE", help="stop after this stage")
    judged = _command(
        commands, "filter", _filter, "judge again with other thresholds; show what changes; no text is read"
    )
    judged.add_argument("--keep", action="store_true", help="write the documents that are then kept, too")
    explained = commands.add_parser("explain", help="explain one document", description="explain one document")
    explained.add_argument("recipe", metavar="RECIPE")
    explained.add_argument(
        "document", metavar="DOC_ID", help="as in the decisions; source/file#index for a rejected record"
    )
    explained.add_argument("overrides", metavar="key=value", nargs="*")
    explained.set_defaults(command=_explain)
    page = _command(commands, "data-report", _data_report, "draw the data on one page with movable thresholds")
    page.add_argument("--out", type=Path, metavar="OUT.html", help="default: data_report.html in the run folder")
    page.add_argument("--sample", type=int, default=5_000, metavar="N", help="documents in the page, at most")
    started = _command(commands, "launch", _launch, "train on many hosts: a hostfile's, or as a Slurm job")
    where = started.add_mutually_exclusive_group(required=True)
    where.add_argument("--hostfile", type=Path, metavar="FILE", help="DeepSpeed's: a line `HOST slots=8` a host")
    where.add_argument("--slurm", action="store_true", help="write and submit the jobs of launch.slurm")
    started.add_argument("--dry-run", action="store_true", help="show the command, or write the scripts; start nothing")
    started.add_argument("--no-preflight", action="store_true", help="do not look at the hosts first")
    ready = _command(commands, "preflight", _preflight, "check recipe, artifacts, hosts, links, one step")
    ready.add_argument("--hostfile", type=Path, metavar="FILE", help="look at these hosts")
    ready.add_argument("--no-dry-run", action="store_true", help="start no ranks")
    shown = commands.add_parser("status", help="show where a run stands", description="show where a run stands")
    shown.add_argument("folder", type=Path, metavar="DIR", help="the recipe's run_dir")
    shown.set_defaults(command=_status, overrides=[])
    _command(commands, "validate", _validate, "validate a recipe and show what it would train; no GPU, no data needed")
    plan = _command(commands, "plan", _plan, "draw tokens, learning rate, batch and mixture by step; no data needed")
    plan.add_argument("--out", type=Path, metavar="OUT.html", help="default: plan.html in the run folder")
    plan.add_argument("--gpus", type=int, metavar="N", help="compute memory, time and cost on N devices instead")
    plan.add_argument("--gpu", default="h100", metavar="NAME", help="their kind: h100, h200, a100, a100-40gb, measured")
    plan.add_argument("--constants", type=Path, metavar="FILE", help="measured constants in place of assumed ones")
    plan.add_argument("--json", type=Path, metavar="OUT", help="write the computed numbers, too")
    plan.add_argument("--profile-hardware", type=Path, metavar="OUT", help="measure constants on this machine instead")
    _command(commands, "verify", _verify, "compare every byte of a recipe's artifacts with their manifests")
    train = _command(commands, "train-classifier", _train_classifier, "train a recipe's classifiers, show their cards")
    train.add_argument("--name", help="quality, toxicity or domain; default: all that the recipe has")
    train.add_argument("--target-share", type=float, metavar="S", help="choose the threshold that keeps this share")
    train.add_argument("--target-precision", type=float, metavar="P", help="choose the threshold of this precision")
    tuned = _command(
        commands, "tune-thresholds", _tune_thresholds, "derive a language's thresholds from sources of good text"
    )
    tuned.add_argument("--language", required=True, choices=("ko", "en"))
    tuned.add_argument(
        "--reference", required=True, metavar="A,B+C", help="sources of good text; small ones joined by +"
    )
    tuned.add_argument(
        "--drop-share",
        default=[],
        nargs="+",
        metavar="S",
        help="share of each reference that a rule drops: 0.01 words=0.02",
    )
    tuned.add_argument("--out", required=True, type=Path, metavar="OUT.yaml", help="fragment; its plot lies beside it")
    _command(commands, "train-tokenizer", _train_tokenizer, "make a recipe's tokenizer, show its compression")
    _command(commands, "tokenize", _tokenize, "make a recipe's token shards, show what is in them")
    compare = _command(
        commands, "compare-tokenizers", _compare_tokenizers, "measure a recipe's tokenizer beside public ones"
    )
    compare.add_argument(
        "--with", dest="peers", type=Path, metavar="DIR", help="of NAME/tokenizer.json or NAME.json files"
    )
    compare.add_argument("--text", type=Path, metavar="PATH", help="measure on these texts, not on held-out documents")
    compare.add_argument("--out", type=Path, metavar="OUT.html", help="default: tokenizers.html in the run folder")
    _command(
        commands,
        "inspect-tokens",
        _inspect_tokens,
        "show how a recipe's tokenizer cuts a text",
        text="the text; - reads it",
    )
    export = _command(commands, "export", _export, "write a checkpoint of a run as a Llama-format folder")
    export.add_argument("--step", type=int, metavar="N", help="default: the newest checkpoint")
    export.add_argument("--out", type=Path, required=True, metavar="DIR")
    merge = _command(commands, "merge", _merge, "write the mean of a run's last checkpoints, Llama format")
    merge.add_argument("--last", type=int, required=True, metavar="N", help="how many checkpoints")
    merge.add_argument("--out", type=Path, required=True, metavar="DIR")
    batch = _command(commands, "inspect-batch", _inspect_batch, "name the documents in the batch of a training step")
    batch.add_argument("--step", type=int, required=True, metavar="N", help="counted from 1, as in the metrics")
    batch.add_argument("--json", action="store_true", help="print JSON")
    resume = _command(
        commands, "resume-test", _resume_test, "prove on this machine that an interrupted run loses nothing"
    )
    resume.add_argument("--steps", type=int, default=12, metavar="N", help="steps of each phase (default 12)")
    resume.add_argument("--same-ranks", action="store_true", help="leave out the trial with other numbers of ranks")
    resume.add_argument("--kills", type=int, default=0, metavar="N", help="also kill a random rank N times")
    resume.add_argument("--seed", type=int, default=0, help="draws the moments of the interruptions")
    clean = _command(commands, "clean", _clean, "list artifacts that this recipe no longer uses")
    clean.add_argument("--yes", action="store_true", help="remove them")
    return parser


def _command(commands, name, function, summary, **words) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]
    """A command on a recipe; `words` are further arguments, which stand before overrides, and their help."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.add_argument("recipe", metavar="RECIPE", help="a YAML recipe, e.g. configs/smoke.yaml")
    for word, explained in words.items():
        command.add_argument(word, metavar=word.upper(), help=explained)
    command.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. phases.domain.tokens=2T")
    command.set_defaults(command=function)
    return command


def _run(options: argparse.Namespace) -> int:
    from launch.runner import run_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    finished = run_recipe(recipe, _CONSOLE, options.until)
    _show_where(Path(recipe.run_dir), finished.artifacts, finished.built)
    return 0


def _filter(options: argparse.Namespace) -> int:
    from launch.commands.filter import filter_documents

    filter_documents(load_recipe(options.recipe, options.overrides), _CONSOLE, options.keep)
    return 0


def _explain(options: argparse.Namespace) -> int:
    from launch.commands.explain import explain

    explain(load_recipe(options.recipe, options.overrides), options.document, _CONSOLE)
    return 0


def _data_report(options: argparse.Namespace) -> int:
    from launch.commands.data_report import write

    recipe = load_recipe(options.recipe, options.overrides)
    _CONSOLE.print(f"  {write(recipe, options.out, options.sample)}")
    return 0


def _launch(options: argparse.Namespace) -> int:
    from launch.commands import launch

    if options.slurm:
        launch.by_slurm(options.recipe, options.overrides, not options.no_preflight, options.dry_run, _CONSOLE)
    else:
        launch.by_hostfile(
            options.recipe, options.overrides, options.hostfile, not options.no_preflight, options.dry_run, _CONSOLE
        )
    return 0


def _preflight(options: argparse.Namespace) -> int:
    from launch.cluster import hostfile
    from launch.commands.preflight import preflight

    overrides = list(options.overrides)
    if options.hostfile:
        nodes = len(hostfile.read(options.hostfile))
        overrides += [f"launch.hostfile={options.hostfile}", f"launch.nodes={nodes}"]
    preflight(load_recipe(options.recipe, overrides), _CONSOLE, not options.no_dry_run)
    _CONSOLE.print("[green]ready[/green]")
    return 0


def _status(options: argparse.Namespace) -> int:
    from launch.commands.status import status

    status(options.folder, _CONSOLE)
    return 0


def _validate(options: argparse.Namespace) -> int:
    from launch.commands.validate import describe

    recipe = load_recipe(options.recipe, options.overrides)
    describe(recipe, _CONSOLE)
    _CONSOLE.print(f"[green]valid[/green]  {escape(options.recipe)}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from launch.commands import gpu_plan
    from launch.commands.plan import plan

    recipe = load_recipe(options.recipe, options.overrides)
    if options.profile_hardware is not None:
        path = gpu_plan.profile_hardware(recipe, options.profile_hardware, _CONSOLE)
    elif options.gpus is not None:
        path = gpu_plan.gpu_plan(
            recipe, options.gpus, options.gpu, options.constants, options.out, options.json, _CONSOLE
        )
    else:
        path = plan(recipe, options.out, _CONSOLE)
    _CONSOLE.print(f"  {path}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from launch.runner import verify_run

    artifacts = verify_run(load_recipe(options.recipe, options.overrides), _CONSOLE)
    _CONSOLE.print(f"[green]intact[/green]  {len(artifacts)} artifacts" if artifacts else "nothing was made yet")
    return 0


def _train_classifier(options: argparse.Namespace) -> int:
    from launch.commands.train_classifier import Target, train_classifier

    recipe = load_recipe(options.recipe, options.overrides)
    train_classifier(recipe, options.name, Target(options.target_share, options.target_precision), _CONSOLE)
    return 0


def _tune_thresholds(options: argparse.Namespace) -> int:
    from launch.commands.tune_thresholds import settings_of, tune_thresholds

    recipe = load_recipe(options.recipe, options.overrides)
    settings = settings_of(options.reference, options.drop_share)
    tune_thresholds(Path(options.recipe), recipe, options.language, settings, options.out, _CONSOLE)
    _CONSOLE.print(f"  {options.out}\n  {options.out.with_suffix('.html')}")
    return 0


def _train_tokenizer(options: argparse.Namespace) -> int:
    from launch.commands.tokenizer import train_tokenizer

    train_tokenizer(load_recipe(options.recipe, options.overrides), _CONSOLE)
    return 0


def _tokenize(options: argparse.Namespace) -> int:
    from launch.commands.tokenizer import tokenize

    tokenize(load_recipe(options.recipe, options.overrides), _CONSOLE)
    return 0


def _compare_tokenizers(options: argparse.Namespace) -> int:
    from launch.commands.compare_tokenizers import compare_tokenizers

    recipe = load_recipe(options.recipe, options.overrides)
    compare_tokenizers(recipe, options.peers, options.text, options.out, _CONSOLE)
    return 0


def _inspect_tokens(options: argparse.Namespace) -> int:
    from launch.commands.tokenizer import inspect_tokens

    text = sys.stdin.read() if options.text == "-" else options.text
    inspect_tokens(options.recipe, load_recipe(options.recipe, options.overrides), text, _CONSOLE)
    return 0


def _export(options: argparse.Namespace) -> int:
    from launch.commands.checkpoints import export

    export(load_recipe(options.recipe, options.overrides), options.step, options.out, _CONSOLE)
    return 0


def _merge(options: argparse.Namespace) -> int:
    from launch.commands.checkpoints import merge

    merge(load_recipe(options.recipe, options.overrides), options.last, options.out, _CONSOLE)
    return 0


def _inspect_batch(options: argparse.Namespace) -> int:
    from launch.commands.checkpoints import inspect_batch

    inspect_batch(load_recipe(options.recipe, options.overrides), options.step, options.json, _CONSOLE)
    return 0


def _resume_test(options: argparse.Namespace) -> int:
    from launch.commands.resume_test import resume_test

    if options.steps < 6:
        raise user_error("--steps", options.steps, "leaves no room for interruptions", "use at least 6")
    recipe = load_recipe(options.recipe, options.overrides)
    held = resume_test(recipe, _CONSOLE, options.steps, options.seed, options.same_ranks, options.kills)
    return 0 if held else 1


def _clean(options: argparse.Namespace) -> int:
    from launch.preflight import only_run
    from launch.runner import unused

    recipe = load_recipe(options.recipe, options.overrides)
    with only_run(Path(recipe.run_dir)):
        folders = unused(recipe)
        for folder in folders:
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            _CONSOLE.print(f"  {folder}  {format_bytes(size)}")
            if options.yes:
                shutil.rmtree(folder)
    _CONSOLE.print(f"{len(folders)} unused" + ("" if options.yes or not folders else "; `--yes` removes them"))
    return 0


def _show_where(run_dir: Path, artifacts: Mapping[str, Artifact], built: Sequence[str]) -> None:
    places = {
        "report": ("report", "report/report.html"),
        "export": ("model", "export/model"),
        "train": ("metrics", "train/metrics.jsonl"),
        "tokenizer": ("tokenizer", "tokenizer/tokenizer.json"),
        "filter": ("decisions", "filter/decisions"),
    }
    _CONSOLE.print()
    _CONSOLE.print(f"[bold]{len(built)} stages made, {len(artifacts) - len(built)} unchanged[/bold]")
    for stage, (name, place) in places.items():
        if stage in artifacts:
            _CONSOLE.print(f"  {name:<10} {os.path.join(run_dir, place)}")


if __name__ == "__main__":
    sys.exit(main())
