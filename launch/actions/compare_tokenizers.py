"""`twofold compare-tokenizers`: a recipe's tokenizer, and public ones beside it, measured on the same text.

Contract: makes the recipe's tokenizer where it is missing; measures it and every tokenizer of `--with` on the kept
documents that are held out from training (or on `--text`), through the same engine; writes a page
(launch/reports/tokenizers.py) and the same figures as JSON beside it. Use of the vocabulary is counted where the token
shards are made already, and morphemes where MeCab is installed; where not, the page says so. Cost: for each
tokenizer some 3 s, 0.5 GB and a second for 2 MB of text, of which each source gives 1 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.schema import Recipe
from configs.units import format_bytes
from launch.actions import labelled_texts
from launch.actions.tokenizer import characters
from launch.reports import tokenizers
from launch.runner import existing, run_recipe
from tokenizer.evaluation import compression as measures
from tokenizer.evaluation import morpheme_scores, vocabulary
from tokenizer.evaluation.candidates import Candidate, load, load_folder
from tokenizer.evaluation.compression import Groups
from tokenizer.formats import TOKENIZER_FILE
from tokenizer.shards import read_index
from tokenizer.training import morphemes
from twofold.artifacts import Artifact
from twofold.errors import UserError, user_error
from twofold.files import write_json

BYTES_PER_SOURCE = 1_000_000
_CURVE_BYTES, _KOREAN_BYTES = 300_000, 400_000
"""Of each language and domain; smaller samples for what encodes them several times."""
_EXCERPT = 220
EXAMPLES = {
    "prose": "바람이 불면 마을 사람들은 항구로 나가 배를 살폈다. 도서관에서는 아무도 그 소리를 듣지 못했을 것이다.",
    "law": "제12조(손해배상의 범위) ① 채무불이행으로 인한 손해배상은 통상의 손해를 그 한도로 한다.",
    "chat": "아 진짜 ㅋㅋㅋㅋㅋ 그거 완전 웃겼음ㅠㅠ 낼 3시 반에 봐용~ 👍🏽",
    "English": "Tokenization isn't neutral: in 2026 a misspelt “accomodation” still costs 3 tokens, doesn't it?",
    "code": "def area(width: float, height: float) -> float:\n    if width <= 0:\n        return 0.0\n",
    "mixed": "GPU 8개로 Llama-3.1-8B를 fine-tuning했더니 loss가 2.31에서 1.87로 떨어졌다(약 19%).",
}
Row = dict[str, Any]


def compare_tokenizers(
    recipe: Recipe, peers: Path | None, text: Path | None, out: Path | None, console: Console
) -> None:
    """Measure, print a table, write the page and the JSON."""
    others = load_folder(peers) if peers else []
    if recipe.name in (other.name for other in others):
        raise user_error("--with", recipe.name, "is also the recipe's own name", "rename that tokenizer")
    given = list(labelled_texts.read_texts(text)) if text else None  # report mistakes before anything is built
    artifacts = run_recipe(recipe, console, until="tokenizer").artifacts
    texts = measures.held_out(artifacts["write"].path, BYTES_PER_SOURCE) if given is None else given
    groups = measures.groups_of(texts)
    if not groups:
        raise user_error("--text", None, "has nothing to measure", "raise data.validation_share, or give texts")
    found = measure(recipe, existing(recipe), others, groups, held_out=given is None)
    console.print(table(found))
    target = out or Path(recipe.run_dir) / "tokenizers.html"
    tokenizers.write(found, target)
    write_json(target.with_suffix(".json"), found)
    console.print(f"  {escape(str(target))}\n  {escape(str(target.with_suffix('.json')))}", soft_wrap=True)


def measure(
    recipe: Recipe, artifacts: Mapping[str, Artifact], others: Sequence[Candidate], groups: Groups, held_out: bool
) -> Row:
    """All figures, as the JSON has them; the recipe's own tokenizer first. `held_out`: the texts are the recipe's."""
    made = artifacts["tokenizer"]
    path = made.path / TOKENIZER_FILE
    candidates = [load(recipe.name, path), *others]
    korean = list(
        chain(*(own for (language, _), own in measures.sample(groups, _KOREAN_BYTES).items() if language == "ko"))
    )
    words, no_words = _korean_words(korean)
    return {
        "recipe": recipe.name,
        "text": {
            "documents": sum(map(len, groups.values())),
            "bytes": sum(len(text.encode()) for own in groups.values() for text in own),
            "held_out": held_out,
        },
        "tokenizers": {candidate.name: _figures(candidate, groups, korean, words) for candidate in candidates},
        "no_morphemes": no_words,
        "curve": measures.curve(path, measures.sample(groups, _CURVE_BYTES)),
        "usage": _usage(candidates[0], made, artifacts.get("shards")),
        "examples": [_example(label, text, candidates) for label, text in _texts_shown(groups).items()],
    }


def _figures(
    candidate: Candidate, groups: Groups, korean: Sequence[str], words: morpheme_scores.KoreanWords | None
) -> Row:
    contents = vocabulary.contents(candidate)
    for kind in contents.values():
        kind["examples"] = [shown(text.encode()) for text in kind["examples"]]
    return {
        "vocab_size": candidate.vocab_size,
        "compression": measures.compression(candidate, groups),
        "partial_character_tokens": vocabulary.partial_count(candidate),
        "syllables": measures.syllables(candidate),
        "nfd_penalty": measures.nfd_penalty(candidate, korean) if korean else None,
        "morphemes": morpheme_scores.boundary_scores(candidate, words) if words else None,
        "vocabulary": contents,
    }


def _korean_words(korean: Sequence[str]) -> tuple[morpheme_scores.KoreanWords | None, str]:
    """Analysed words, or None and why there are none."""
    if not korean:
        return None, "The measured text has no Korean."
    try:
        return morpheme_scores.korean_words(korean, morphemes.analyser()), ""
    except UserError as error:
        return None, f"Not measured: MeCab {error.problems[0].problem}."


def _usage(own: Candidate, made: Artifact, shards: Artifact | None) -> Row | None:
    if shards is None:
        return None
    found = vocabulary.usage(own, read_index(shards.path, made.identity))
    for row in found["candidates"]:
        row["text"] = shown(bytes.fromhex(row["bytes"]))
    return found


def _texts_shown(groups: Groups) -> dict[str, str]:
    """Examples of our own, then the beginning of the first held-out text of each language."""
    excerpts: dict[str, str] = {}
    for (language, _), own in groups.items():
        excerpts.setdefault(f"held-out text: {language}", own[0][:_EXCERPT])
    return {**EXAMPLES, **excerpts}


def _example(label: str, text: str, candidates: Sequence[Candidate]) -> Row:
    cuts = {
        candidate.name: [shown(candidate.pieces[number] or b"") for number in candidate.encode([text])[0]]
        for candidate in candidates
    }
    return {"label": label, "text": text, "cuts": cuts}


def shown(piece: bytes) -> str:
    """A piece in printable characters."""
    return "".join(characters(piece, blank=" "))


def table(found: Mapping[str, Any]) -> Table:
    """Tokens a word by language, and what concerns Korean, a tokenizer a row."""
    languages = list(found["tokenizers"][found["recipe"]]["compression"])
    result = Table(
        "tokens per word of",
        "ids",
        *languages,
        "syllables\nof 1 token",
        "NFD/NFC",
        title=f"tokenizers, on {format_bytes(found['text']['bytes'])} of text",
    )
    for name, row in found["tokenizers"].items():
        figures = (f"{row['compression'][language]['all']['tokens_per_word']:.3f}" for language in languages)
        penalty = f"{row['nfd_penalty']:.2f}" if row["nfd_penalty"] else "–"
        result.add_row(escape(name), f"{row['vocab_size']:,}", *figures, f"{row['syllables']['one']:,}", penalty)
    return result
