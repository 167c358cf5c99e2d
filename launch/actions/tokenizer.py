"""`twofold train-tokenizer RECIPE`, `twofold tokenize RECIPE`, `twofold inspect-tokens RECIPE TEXT`.

Contract: the first two make the chain up to their stage and show what came of it. The last reads the recipe's
tokenizer and shows how a text is cut: coloured pieces, then a row a token. Nothing of a text reaches the terminal
but printable characters: others are shown as escapes, and bytes that are a part of a character as hexadecimal.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from configs.schema import Recipe
from configs.units import format_bytes
from launch.runner import existing, run_recipe
from twofold.errors import user_error

_COLOURS = ("black on #a6cee3", "black on #fdbf6f", "black on #b2df8a", "black on #cab2d6", "black on #fb9a99")
_FILES = {
    "tokenizer.json": "tokenizers, transformers",
    "tokenizer.tiktoken": "tiktoken, with tiktoken.json",
    "pieces.model": "sentencepiece, for words that are cut and mapped before",
}


def train_tokenizer(recipe: Recipe, console: Console) -> None:
    """Train the tokenizer; show its size and its compression of held-out text."""
    made = run_recipe(recipe, console, until="tokenizer").artifacts["tokenizer"]
    counts = made.counts
    console.print(
        f"\n{counts['vocab_size']:,} ids, {counts['merges']:,} of them merges, learnt from "
        f"{counts['words']:,} words, {counts['distinct_words']:,} distinct"
    )
    table = Table("held-out text", "tokens per word", "bytes per token", title="compression")
    for language, figures in counts["held_out"].items():
        table.add_row(language, f"{figures['tokens_per_word']:.3f}", f"{figures['bytes_per_token']:.3f}")
    console.print(table)
    for name, engine in _FILES.items():
        console.print(f"  {escape(str(made.path / name))}  [dim]{engine}[/dim]", soft_wrap=True)


def tokenize(recipe: Recipe, console: Console) -> None:
    """Write the token shards; show what is in them."""
    from tokenizer.shards import read_index

    artifacts = run_recipe(recipe, console, until="shards").artifacts
    index = read_index(artifacts["shards"].path, artifacts["tokenizer"].identity)
    table = Table(
        "split", "source", "domain", "shards", "documents", "tokens", "text", "bytes per token", title="shards"
    )
    for split, sources in index.splits.items():
        for source, entry in sources.items():
            numbers = (f"{len(entry.shards):,}", f"{entry.documents:,}", f"{entry.tokens:,}")
            rate = f"{entry.bytes / entry.tokens:.3f}"
            table.add_row(split, escape(source), escape(entry.domain), *numbers, format_bytes(entry.bytes), rate)
    console.print(table)
    console.print(f"  {escape(str(index.folder))}", soft_wrap=True)


def inspect_tokens(recipe_path: str, recipe: Recipe, text: str, console: Console) -> None:
    """Show how the recipe's tokenizer splits `text`."""
    from tokenizer.encoder import Encoder

    made = existing(recipe).get("tokenizer")
    if made is None:
        command = f"twofold train-tokenizer {recipe_path}"
        raise user_error("RECIPE", recipe_path, "has no tokenizer yet", f"run `{command}`")
    encoder = Encoder(made.path)
    ids = encoder.encode([text])[0]
    pieces = [encoder.piece(number) for number in ids]
    shown = Text(overflow="fold")
    for place, piece in enumerate(pieces):
        shown.append("".join(characters(piece, blank=" ")), _COLOURS[place % len(_COLOURS)])
    console.print(shown)
    table = Table("token", "id", "piece", "bytes")
    for place, (number, piece) in enumerate(zip(ids, pieces, strict=True)):
        table.add_row(str(place), str(number), Text("".join(characters(piece, blank="␣"))), piece.hex(" "))
    console.print(table)
    words, size = len(text.split()), sum(map(len, pieces))
    console.print(
        f"{len(ids)} tokens, {len(text)} characters, {size} bytes, {words} words: "
        f"{size / max(1, len(ids)):.2f} bytes per token, {len(ids) / max(1, words):.2f} tokens per word"
    )


def characters(piece: bytes, blank: str) -> Iterator[str]:
    """A piece as it can be shown: characters, escapes, and bytes of partial characters in angle brackets."""
    at = 0
    while at < len(piece):
        for size in range(1, 5):
            try:
                character = piece[at : at + size].decode("utf-8")
            except UnicodeDecodeError:
                continue
            break
        else:
            character, size = "", 1
        if not character:
            yield f"<{piece[at]:02x}>"
        elif character == " ":
            yield blank
        else:
            yield character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        at += size
