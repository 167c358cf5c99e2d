"""Commands on the tokenizer and the token shards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from launch.commands import Command, recipe_of


def _train_tokenizer(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.tokenizer import train_tokenizer

    train_tokenizer(recipe_of(options), console)


def _tokenize(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.tokenizer import tokenize

    tokenize(recipe_of(options), console)


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--with", dest="peers", type=Path, metavar="DIR", help="folder of NAME/tokenizer.json or NAME.json files"
    )
    parser.add_argument(
        "--text", type=Path, metavar="PATH", help="measure on these texts (default: held-out documents)"
    )
    parser.add_argument("--out", type=Path, metavar="OUT.html", help="default: tokenizers.html in the run folder")


def _compare(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.compare_tokenizers import compare_tokenizers

    recipe = recipe_of(options)
    compare_tokenizers(recipe, options.peers, options.text, options.out, console)


def _inspect_tokens_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="the text; - reads it from standard input")


def _inspect_tokens(options: argparse.Namespace, console: Console) -> None:
    from launch.actions.tokenizer import inspect_tokens

    text = sys.stdin.read() if options.text == "-" else options.text
    inspect_tokens(options.recipe, recipe_of(options), text, console)


COMMANDS = (
    Command(
        "train-tokenizer",
        "tokenizer",
        "train a recipe's tokenizer and show its compression",
        "twofold train-tokenizer smoke tokenizer.vocab_size=4096",
        _train_tokenizer,
    ),
    Command(
        "tokenize",
        "tokenizer",
        "write a recipe's token shards and show what they hold",
        "twofold tokenize smoke",
        _tokenize,
    ),
    Command(
        "inspect-tokens",
        "tokenizer",
        "show how a recipe's tokenizer splits a text",
        'twofold inspect-tokens smoke "토크나이저를 시험한다"',
        _inspect_tokens,
        _inspect_tokens_arguments,
    ),
    Command(
        "compare-tokenizers",
        "tokenizer",
        "measure a recipe's tokenizer against public ones",
        "twofold compare-tokenizers smoke --with tokenizers/",
        _compare,
        _compare_arguments,
    ),
)
