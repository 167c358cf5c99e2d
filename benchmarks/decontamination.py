"""Benchmark overlaps: speed against datatrove's n-gram filter, recall on planted items, overlaps in the corpus.

    python -m benchmarks.decontamination --corpus DIR [--json OUT]

Contract: three results over the benchmarks of the corpus folder.

- speed: `full` and `sampled` on English and Korean articles, from text to verdict, and datatrove's
  NGramsDecontFilter on the same English articles. Its method differs: it hashes word 12-grams and drops a document
  at the first match. Its indexer needs lighteval, which downloads the tasks, so this script writes an index in its
  format from the three English benchmarks that are planted (ours looks for all eleven).
- recall: items are planted into documents without any: whole, half, retyped (changed case, spaces and marks) and
  with every eighth word replaced (most keep no 50 consecutive characters). The recall of `sampled` is shown with
  its expected value, 1 - (1 - p)^N, where p is the share of a document's substrings that are shared. `unconfirmed`
  counts pairs of document and item that plain Python strings do not confirm.
- corpus: documents found in each source, by benchmark. PubMedQA's abstracts are there on purpose, BoolQ and KoBEST
  quote Wikipedia, and GSM8K's two splits share sentences; sources that are not listed have no overlap.
"""

from __future__ import annotations

import itertools
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from benchmarks import common
from configs.data_schema import Decontamination
from data_pipeline.features import overlap
from data_pipeline.features.overlap import Index, Overlaps
from data_pipeline.stages import benchmark_items, decontaminate
from data_pipeline.stages.benchmark_items import Items

SEED = 20240807
_ARTICLES = {"english": "general/en-text/enwiki", "korean": "general/ko-text/kowiki"}
_HOSTS = {"english": "general/en-text/peps", "korean": "general/ko-text/petitions"}
_PLANTED = {"english": ("gsm8k-test", "arc", "piqa"), "korean": ("kobest-test", "kornlu-test", "komt-bench")}
_HOST_CHARACTERS = 2_500
_SEEDS = 20
"""The recall of `sampled` is averaged over these."""
_SOURCES = ("general/*-text/*", "domain/*/*")
_WORD = re.compile(r"\S+")


class Finder:
    """Both methods over one set of benchmarks."""

    def __init__(self, corpus: Path) -> None:
        places = {path.name: str(path) for path in sorted((corpus / "benchmarks").iterdir())}
        self.settings = Decontamination(benchmarks=places)
        self.names = sorted(places)
        self.items, self.sizes = benchmark_items.read(self.settings)
        self._indices = {method: self._index(method == "full") for method in ("full", "sampled")}

    def full(self, texts: Sequence[str]) -> Overlaps:
        return overlap.every(texts, self._indices["full"])

    def sampled(self, texts: Sequence[str], seed: int = SEED) -> Overlaps:
        """The ids of the texts are their positions."""
        draws = [decontaminate.draws(seed, f"document/{i}", self.settings.samples) for i in range(len(texts))]
        return overlap.sampled(texts, np.array(draws, np.uint32).reshape(len(texts), -1), self._indices["sampled"])

    def _index(self, whole_items: bool) -> Index:
        return overlap.index_of(self.items.codes, self.items.bounds, self.settings.characters, whole_items)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = common.parser("decontamination", "Benchmark overlaps: speed, recall, and what is in the corpus.")
    options.add_argument("--timed-megabytes", type=float, default=1.5, help="of articles of each language")
    options.add_argument("--planted", type=int, default=400, help="documents of each language and form")
    chosen = options.parse_args(arguments)
    finder = Finder(chosen.corpus)
    speed, peer = measure_speed(finder, chosen.corpus, int(chosen.timed_megabytes * 1e6), chosen.repetitions)
    recall, peer_recall = measure_recall(finder, chosen.corpus, chosen.planted)
    common.report(
        "decontamination",
        {
            "ours": {**speed, "recall": recall, "corpus": real_overlap(finder, chosen.corpus)},
            "peers": {"datatrove NGramsDecontFilter": {"english_mb_per_s": peer, "english_recall": peer_recall}},
            "ratio": speed["full_english_mb_per_s"] / peer,
            "items": {name: vars(size) for name, size in finder.sizes.items()},
            "item_characters": len(finder.items.codes),
            "timed_megabytes": chosen.timed_megabytes,
            "repetitions": chosen.repetitions,
        },
        chosen.json,
    )


# --- speed -------------------------------------------------------------------------------------


def measure_speed(finder: Finder, corpus: Path, size: int, repetitions: int) -> tuple[dict[str, float], float]:
    """(our MB/s by method and language, datatrove's of English)."""
    texts = {name: _texts(corpus / folder, size) for name, folder in _ARTICLES.items()}
    contestants: dict[str, Callable[[], Any]] = {
        f"{method}_{name}": lambda find=find, part=part: find(part)  # type: ignore[misc]
        for method, find in (("full", finder.full), ("sampled", finder.sampled))
        for name, part in texts.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        stock = stock_filter(finder, Path(folder))
        contestants["datatrove_english"] = lambda: [stock(text) for text in texts["english"]]
        seconds = common.interleaved(contestants, repetitions)
    speed = {
        f"{name}_mb_per_s": sum(len(text.encode()) for text in texts[name.split("_")[1]]) / 1e6 / taken
        for name, taken in seconds.items()
    }
    return speed, speed.pop("datatrove_english_mb_per_s")


def stock_filter(finder: Finder, folder: Path) -> Callable[[str], bool]:
    """Whether datatrove's filter drops a text, its index being all 12-grams of the English benchmarks' items."""
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text

    stock = NGramsDecontFilter(str(folder))
    stock.hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())  # its own fails on xxhash 4: takes bytes only
    hashes: set[int] = set()
    for name in _PLANTED["english"]:
        for text in _item_texts(finder, name):
            words = stock.tokenizer.word_tokenize(simplify_text(text, stock.config.norm_config))
            hashes.update(stock.hash_func(" ".join(gram)) for gram in ngrams(words, stock.config.n_grams))
    np.array(sorted(hashes), dtype=stock.config.hash_config.np_descr).tofile(folder / "english.index.hashes")
    stock.load_index_hashes()
    return lambda text: stock.filter(Document(text=text, id="x")) is not True


# --- recall ------------------------------------------------------------------------------------


def measure_recall(finder: Finder, corpus: Path, count: int) -> tuple[dict[str, Any], dict[str, float]]:
    """(our recall by language and form, datatrove's on the English documents)."""
    ours: dict[str, Any] = {}
    peer: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        stock = stock_filter(finder, Path(folder))
        for language in _HOSTS:
            hosts = [text[:_HOST_CHARACTERS] for text in _texts(corpus / _HOSTS[language], 10_000_000)]
            hosts = [text for text in hosts if len(text) == _HOST_CHARACTERS][:count]
            for form, planted in plant(finder, language, hosts).items():
                ours[f"{language}_{form}"] = _recall(finder, planted)
                if language == "english":
                    peer[form] = float(np.mean([stock(text) for text in planted]))
    return ours, peer


def plant(finder: Finder, language: str, hosts: Sequence[str]) -> dict[str, list[str]]:
    """Documents by form; `none` are the hosts themselves. Items are long enough that a half is found."""
    choose = random.Random(SEED)
    items = [text for name in _PLANTED[language] for text in _item_texts(finder, name)]
    items = [text for text in items if sum(map(str.isalnum, text)) >= 2 * finder.settings.characters + 10]
    chosen = [choose.choice(items) for _ in hosts]
    forms: dict[str, Callable[[str], str]] = {
        "whole": str,
        "half": lambda text: text[len(text) // 2 - 2 :],
        "retyped": lambda text: re.sub(r"[^\w\s]|_", "", text).upper().replace(" ", "\n - "),
        "words_replaced": _words_replaced,
    }
    planted: dict[str, list[str]] = {"none": list(hosts)}
    for name, form in forms.items():
        places = [choose.randrange(len(host)) for host in hosts]
        planted[name] = [
            f"{host[:place]}\n{form(item)}\n{host[place:]}"
            for host, item, place in zip(hosts, chosen, places, strict=True)
        ]
    return planted


def _words_replaced(text: str) -> str:
    words = _WORD.findall(text)
    return " ".join("qx" if number % 8 == 4 else word for number, word in enumerate(words))


def _recall(finder: Finder, texts: Sequence[str]) -> dict[str, Any]:
    full = finder.full(texts)
    sampled = [(finder.sampled(texts, seed).matches > 0).mean() for seed in range(SEED, SEED + _SEEDS)]
    _, bounds = overlap.fold(texts)
    substrings = np.maximum(1, np.diff(bounds) - finder.settings.characters + 1)
    expected = 1 - (1 - full.matches / substrings) ** finder.settings.samples
    return {
        "documents": len(texts),
        "full": float((full.matches > 0).mean()),
        "sampled": float(np.mean(sampled)),
        "sampled_in_theory": float(expected.mean()),
        "unconfirmed": unconfirmed(finder.items, texts, full, finder.settings.characters),
    }


def unconfirmed(items: Items, texts: Sequence[str], found: Overlaps, window: int) -> int:
    """Pairs of document and item that share nothing, by plain strings."""
    folded = _strings(*overlap.fold(texts))
    wrong = 0
    for document, number in found.pairs.tolist():
        item = "".join(map(chr, items.codes[items.bounds[number] : items.bounds[number + 1]]))
        length = min(window, len(item))
        wrong += not any(item[i : i + length] in folded[document] for i in range(len(item) - length + 1))
    return wrong


# --- what is in the corpus ---------------------------------------------------------------------


def real_overlap(finder: Finder, corpus: Path) -> dict[str, Any]:
    """Source -> its documents, those found by each method, and by benchmark; sources without any are counted."""
    found: dict[str, Any] = {}
    clean = Counter[str]()
    for folder in sorted(path for pattern in _SOURCES for path in corpus.glob(pattern)):
        texts = _texts(folder, 2**62)
        by_benchmark: Counter[str] = Counter()
        counts: Counter[str] = Counter(documents=len(texts))
        for start in range(0, len(texts), 1_000):
            part = texts[start : start + 1_000]
            full = finder.full(part)
            counts["full"] += int((full.matches > 0).sum())
            counts["sampled"] += int((finder.sampled(part).matches > 0).sum())
            counts["unconfirmed"] += unconfirmed(finder.items, part, full, finder.settings.characters)
            owners = finder.items.benchmarks[full.pairs[:, 1]]
            pairs = {(document, int(owner)) for document, owner in zip(full.pairs[:, 0].tolist(), owners, strict=True)}
            by_benchmark.update(finder.names[owner] for _, owner in pairs)
        if counts["full"]:
            found[folder.relative_to(corpus).as_posix()] = {**counts, "by_benchmark": dict(by_benchmark)}
        else:
            clean.update(sources=1, documents=len(texts))
    return {**found, "without_any": dict(clean)}


def _texts(folder: Path, size: int) -> list[str]:
    return [record["text"] for record in common.records(folder, size)]


def _item_texts(finder: Finder, name: str) -> list[str]:
    records = common.records(Path(finder.settings.benchmarks[name]))
    return [benchmark_items.text_of(record, finder.settings.characters) for record in records]


def _strings(codes: np.ndarray, bounds: np.ndarray) -> list[str]:
    return ["".join(map(chr, codes[start:end])) for start, end in itertools.pairwise(bounds)]


if __name__ == "__main__":
    main()
