"""Tokens per word on text of sources that were not trained on, beside public tokenizers.

    python -m benchmarks.compression --with DIR [--corpus DIR] [--scratch DIR] [--json OUT]

Contract: our profiles are trained at 102,400 on the sources `TRAINED`; everybody is measured, through the same
engine, on sources none of which shares its origin with one of those: on `HELD_OUT`, which was looked at when the
default profile was chosen, and on `CONFIRMATION`, which was not. `--with` holds `<name>/tokenizer.json` files.
`ratio` is the peer's tokens divided by ours, so above 1 means that we need fewer; the peer is the best of all in
Korean and in code, and in English the best one of about our vocabulary too. Public tokenizers have seen much more
and much wider text than our 200 MB, which counts most in English.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import common
from benchmarks.tokenizer_variants import VARIANTS, documents, texts, trained
from configs.schema import Tokenizer
from tokenizer.evaluation.candidates import Candidate, load, load_folder
from tokenizer.evaluation.compression import Groups, compression, first_bytes, groups_of
from tokenizer.formats import TOKENIZER_FILE
from twofold.artifacts import Artifact

TRAINED = (
    *("general/ko-text/kowiki", "general/ko-text/petitions", "general/ko-text/ms-cpp-docs-ko"),
    *("domain/law/kr-statutes", "domain/medicine/kowiki-medicine", "domain/finance/kowiki-finance"),
    *("domain/math/kowiki-math", "general/en-text/enwiki", "general/en-text/peps", "general/en-text/shakespeare"),
    *("domain/medicine/medquad", "domain/law/dc-code", "domain/math/stacks-project", "domain/math/gsm8k-train"),
    *("domain/medicine/enwiki-medicine", "domain/finance/enwiki-finance", "domain/math/enwiki-math"),
    *("domain/code/sympy-py", "domain/code/lodash-js"),
)
HELD_OUT = (
    *("general/ko-text/news-parallel", "general/ko-text/nsmc-reviews", "general/ko-text/react-docs-ko"),
    *("general/ko-text/rust-book-ko", "general/ko-text/gnome-help-ko", "labelled/ko-news-comments-unlabelled"),
    *("general/en-text/sotu", "general/en-text/world-factbook", "general/en-text/jargon-file"),
    *("domain/science/pubmedqa-abstracts", "domain/code/networkx-py", "domain/code/zstd-c"),
)
CONFIRMATION = (
    *("labelled/ko-curse", "benchmarks/kobest-test", "benchmarks/kornlu-test", "benchmarks/komt-bench"),
    *("general/web-html/libreoffice-help-ko", "general/web-html/debian-install-guide"),
    *("general/web-html/postgres-docs", "general/web-html/anarchist-faq", "benchmarks/boolq-dev", "benchmarks/arc"),
    *("benchmarks/piqa", "benchmarks/math-test", "labelled/en-hate-offensive", "labelled/en-sms-spam"),
)
_BYTES_PER_SOURCE = 1_000_000
_EQUAL_VOCABULARY = 1.05
"""A tokenizer whose vocabulary is at most so many times ours counts as of equal size."""
Figures = dict[str, dict[str, dict[str, float]]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and report."""
    options = common.parser("compression", "Tokens per word on sources not trained on.")
    options.add_argument("--with", dest="peers", type=Path, required=True, metavar="DIR", help="public tokenizers")
    options.add_argument("--scratch", type=Path, metavar="DIR", help="keeps what is trained; default: a temporary one")
    options.add_argument("--vocab-size", type=int, default=102_400)
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = chosen.scratch or Path(temporary)
        kept = documents(chosen.corpus, TRAINED, scratch)
        ours = [_variant(name, kept, chosen.vocab_size, scratch) for name in VARIANTS]
        peers = load_folder(chosen.peers)
        held_out, confirmation = (
            compared(ours, peers, measured_text(chosen.corpus, sources)) for sources in (HELD_OUT, CONFIRMATION)
        )
        trained_on = {Path(source).name: size for source, size in kept.counts.items()}
        result = {**held_out, "confirmation": confirmation, "trained_on_bytes": trained_on}
        common.report("compression", {**result, "vocab_size": chosen.vocab_size}, chosen.json)


def measured_text(corpus: Path, sources: Sequence[str]) -> Groups:
    """Korean, English and code of sources, the first bytes of each."""
    groups = groups_of(text for own in texts(corpus, sources).values() for text in first_bytes(own, _BYTES_PER_SOURCE))
    return {label: own for label, own in groups.items() if label[0] in ("ko", "en", "code")}


def compared(ours: Sequence[Candidate], peers: Sequence[Candidate], groups: Groups) -> dict[str, Any]:
    """The benchmark's result."""
    figures = {candidate.name: compression(candidate, groups) for candidate in (*ours, *peers)}
    sizes = {candidate.name: candidate.vocab_size for candidate in (*ours, *peers)}
    names = [candidate.name for candidate in peers]
    largest = _EQUAL_VOCABULARY * max(candidate.vocab_size for candidate in ours)
    equal = [name for name in names if sizes[name] <= largest]
    _show(figures, sizes)
    return {
        "ours": {candidate.name: _summary(figures[candidate.name]) for candidate in ours},
        "peers": {name: _summary(figures[name]) | {"vocab_size": sizes[name]} for name in names},
        "ratio": {
            candidate.name: {
                **{language: _ratio(figures, candidate.name, names, language) for language in _languages(groups)},
                **({"en_equal_vocabulary": _ratio(figures, candidate.name, equal, "en")} if equal else {}),
            }
            for candidate in ours
        },
        "measured_bytes": {"/".join(label): sum(len(text.encode()) for text in own) for label, own in groups.items()},
    }


def _variant(name: str, kept: Artifact, vocab_size: int, scratch: Path) -> Candidate:
    made = trained(kept, Tokenizer(vocab_size=vocab_size, **VARIANTS[name]), scratch)
    return load(name, made.path / TOKENIZER_FILE)


def _summary(figures: Figures) -> dict[str, Any]:
    return {
        language: {
            "tokens_per_word": row["all"]["tokens_per_word"],
            "bytes_per_token": row["all"]["bytes_per_token"],
            "tokens_per_word_by_source": {name: own["tokens_per_word"] for name, own in row.items() if name != "all"},
        }
        for language, row in figures.items()
    }


def _ratio(figures: Mapping[str, Figures], own: str, peers: Sequence[str], language: str) -> float:
    best = min(figures[name][language]["all"]["tokens_per_word"] for name in peers)
    return best / figures[own][language]["all"]["tokens_per_word"]


def _languages(groups: Groups) -> list[str]:
    return sorted({language for language, _ in groups})


def _show(figures: Mapping[str, Figures], sizes: Mapping[str, int]) -> None:
    languages = sorted(next(iter(figures.values())))
    table = Table("tokenizer", "vocabulary", *languages, title="tokens a word, sources not trained on")
    for name, row in figures.items():
        table.add_row(name, f"{sizes[name]:,}", *(f"{row[label]['all']['tokens_per_word']:.3f}" for label in languages))
    common.CONSOLE.print(table)


if __name__ == "__main__":
    main()
