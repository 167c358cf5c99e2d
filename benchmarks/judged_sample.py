"""Wrong drops and wrong keeps of the shipped rules, by kind of text, on documents that a person has read.

Contract: `python -m benchmarks.judged_sample --corpus DIR [--json OUT]` applies line rules, language identification
and `configs/base.yaml`'s rules to the documents of judged_sample.tsv (source, id, verdict, reason) and compares the
decisions with the verdicts. Shares have 95 % intervals (Wilson 1927). Verdicts are about the text as it is read here,
its extraction included: `good` text would teach a model its language or subject; `junk` would not. Duplicates,
contamination and classifiers are not judged.

`--draw N` prints documents to judge instead: of each kind N that are kept and N that are dropped, those with the least
hash of seed, source and id, long ones with their beginning, middle and end. Documents that only the bounds on length
drop are neither drawn nor counted: lengths are policy.
"""

from __future__ import annotations

import csv
import functools
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from benchmarks import common
from configs.data_schema import Lines, RuleProfiles
from configs.recipe import load_recipe
from data_pipeline.decisions import rules
from data_pipeline.features import language, line_rules
from data_pipeline.features.formulas import features_of
from data_pipeline.readers import html
from data_pipeline.stages import lines

KINDS: dict[str, tuple[str, ...]] = {
    "Korean web": ("general/web-html/libreoffice-help-ko", "general/web-html/debian-install-guide"),
    "Korean text": (
        *("general/ko-text/kowiki", "general/ko-text/petitions", "general/ko-text/nsmc-review-pages"),
        *("general/ko-text/ms-cpp-docs-ko", "general/ko-text/gnome-help-ko", "general/ko-text/react-docs-ko"),
        *("general/ko-text/rust-book-ko", "general/ko-text/news-parallel"),
    ),
    "English web": (
        *("general/web-html/trafilatura-pages", "general/web-html/readability-pages", "general/web-html/postgres-docs"),
        *("general/web-html/anarchist-faq", "general/web-html/debian-install-guide-en"),
    ),
    "code": ("domain/code/networkx-py", "domain/code/sympy-py", "domain/code/lodash-js", "domain/code/zstd-c"),
    "domain": (
        *("domain/law/dc-code", "domain/law/kr-law-articles", "domain/law/kr-statutes"),
        *("domain/math/gsm8k-train", "domain/math/kowiki-math", "domain/math/enwiki-math"),
        *("domain/medicine/medquad", "domain/medicine/kowiki-medicine", "domain/science/pubmedqa-abstracts"),
    ),
}
VERDICTS = Path(__file__).with_name("judged_sample.tsv")
SEED = 20240807
_PER_SOURCE = 3_000_000
"""Bytes that are read of each source to draw from."""
_SHOWN = 400
"""Code points of each part of a long document that are printed."""
_LENGTHS = ("characters<", "words<")
_LINES = Lines()


@dataclass(frozen=True)
class Decided:
    source: str
    id: str
    text: str
    reasons: Sequence[str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the verdicts, or draw documents to judge."""
    options = common.parser("judged_sample", "Wrong drops and wrong keeps on judged documents.")
    options.add_argument("--draw", type=int, metavar="N", help="print N kept and N dropped documents of each kind")
    options.add_argument("--kind", choices=KINDS, help="draw of one kind only")
    chosen = options.parse_args(arguments)
    if chosen.draw:
        for kind in [chosen.kind] if chosen.kind else KINDS:
            _show(kind, _drawn(chosen.corpus, kind, chosen.draw))
        return
    common.report("judged_sample", evaluate(chosen.corpus, read_verdicts()), chosen.json)


def read_verdicts() -> dict[tuple[str, str], str]:
    """(source, id) -> good or junk."""
    with VERDICTS.open(encoding="utf-8", newline="") as file:
        return {(row["source"], row["id"]): row["verdict"] for row in csv.DictReader(file, delimiter="\t")}


def evaluate(corpus: Path, verdicts: dict[tuple[str, str], str]) -> dict[str, Any]:
    """By kind and in all: shares with their intervals, and the reasons of wrong drops."""
    found: dict[str, Any] = {}
    everything: list[tuple[bool, bool]] = []
    wrong: dict[str, list[str]] = {}
    for kind, sources in KINDS.items():
        pairs: list[tuple[bool, bool]] = []
        for source in sources:
            wanted = {identity for name, identity in verdicts if name == source}
            for decided in _decided(corpus, source, wanted):
                if decided.reasons and all(reason.startswith(_LENGTHS) for reason in decided.reasons):
                    continue
                good = verdicts[source, decided.id] == "good"
                pairs.append((good, not decided.reasons))
                if good and decided.reasons:
                    wrong[f"{source} {decided.id}"] = list(decided.reasons)
        found[kind] = _shares(pairs)
        everything += pairs
    return {"ours": {**found, "all": _shares(everything)}, "peers": {}, "ratio": {}, "wrong_drops": wrong}


def _shares(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """`pairs`: (good, kept)."""
    drops = [good for good, kept in pairs if not kept]
    keeps = [good for good, kept in pairs if kept]
    return {
        "drops": len(drops),
        "keeps": len(keeps),
        "wrong_drops": _share(sum(drops), len(drops)),
        "wrong_keeps": _share(len(keeps) - sum(keeps), len(keeps)),
    }


def _share(part: int, whole: int, z: float = 1.96) -> dict[str, float]:
    """A share with its 95 % interval."""
    if not whole:
        return {"share": 0.0, "low": 0.0, "high": 1.0}
    share, spread = part / whole, z * z / whole
    middle = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / whole + spread / whole / 4) / (1 + spread)
    return {"share": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def _decided(corpus: Path, source: str, wanted: set[str] | None) -> Iterator[Decided]:
    """Documents of a source with the reasons to drop them; `wanted`: ids, or None for those of its first bytes."""
    if wanted is not None and not wanted:
        return
    is_code = source.startswith("domain/code/")
    limit = _PER_SOURCE if wanted is None else 2**62
    for record in common.records(corpus / source, limit):
        if wanted is None or record["id"] in wanted:
            text = record.get("text") or html.main_text(record.get("html", ""))
            text = text if is_code else edited(text)
            yield Decided(source, record["id"], text, reasons(text, is_code))


def edited(text: str) -> str:
    """The text after the shipped rules on lines."""
    suspects = line_rules.suspects(pa.array([text], pa.large_string()), _LINES.drop).get(0, [])
    return lines.edited(text, lines.edits_of(text, _LINES, suspects, ()))


def reasons(text: str, is_code: bool) -> list[str]:
    """Why the shipped rules drop a text."""
    detected, score = ("code", 1.0) if is_code else language.identify(text)
    if detected == "other":
        return [rules.WRONG_LANGUAGE]
    columns = features_of([text], [detected])
    columns |= {"language_score": np.array([score]), "quality_score": np.ones(1), "toxicity_score": np.zeros(1)}
    return rules.judge(columns, [detected], rules.bounds(_profiles()))[0]


@functools.cache
def _profiles() -> RuleProfiles:
    return load_recipe(Path(__file__).resolve().parent.parent / "configs" / "smoke.yaml").data.rules


def _drawn(corpus: Path, kind: str, count: int) -> list[Decided]:
    """The kept, then the dropped."""
    found = [decided for source in KINDS[kind] for decided in _decided(corpus, source, None)]
    kept = [decided for decided in found if not decided.reasons]
    dropped = [decided for decided in found if any(not reason.startswith(_LENGTHS) for reason in decided.reasons)]
    return [*heapq.nsmallest(count, kept, _place), *heapq.nsmallest(count, dropped, _place)]


def _place(decided: Decided) -> int:
    return xxhash.xxh3_64_intdigest(f"{SEED}/{decided.source}/{decided.id}".encode())


def _show(kind: str, found: Sequence[Decided]) -> None:
    for decided in found:
        print(f"#### {kind}\t{decided.source}\t{decided.id}\t{', '.join(decided.reasons) or 'kept'}")
        text, middle = decided.text, len(decided.text) // 2
        parts = [text[:_SHOWN], text[middle : middle + _SHOWN], text[-_SHOWN:]] if len(text) > 3 * _SHOWN else [text]
        print("\n[...]\n".join(parts))


if __name__ == "__main__":
    main()
