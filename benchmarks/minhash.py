"""MinHash signatures and clusters against datatrove's stages, and both against the theoretical curve.

    python -m benchmarks.minhash [--corpus DIR] [--megabytes 8] [--json OUT]

Contract: both read the same documents, with 14 buckets of 8 hashes of word 5-grams. Ours: `minhash.sign`
and `dedup.build`; the peer's: MinhashDedupSignature, MinhashDedupBuckets and MinhashDedupCluster, in this process
with its default words (spaCy's for English). Signatures are of real texts, clusters of synthetic signatures;
`ratio` is of both times together, per document. `recall` is the share of pairs planted at a Jaccard similarity of
word 5-grams that share any bucket, beside 1 - (1 - s^8)^14 at the actual similarities; `strangers_paired` counts
pairs of documents that were not planted together, and those of them that are not near duplicates (exact
similarity below 0.5). Needs spacy.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks import common
from configs.data_schema import NearDuplicates
from configs.recipe import load_recipe
from data_pipeline import tables
from data_pipeline.features import minhash
from data_pipeline.stages import dedup, score
from twofold.tasks import Task

FOLDERS = {"en": ("general/en-text", "domain/medicine/medquad"), "ko": ("general/ko-text/kowiki",)}
Signatures = npt.NDArray[np.uint64]
"""Shape (documents, buckets, hashes)."""
Keys = npt.NDArray[np.uint64]
SIMILARITIES = tuple(n / 100 for n in range(50, 100, 5))
SETTINGS = NearDuplicates()
_SEED = 11
_FEWEST_WORDS = 250
_NEAR = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser("minhash", "MinHash signatures and clusters against datatrove's.")
    options.add_argument("--megabytes", type=float, default=8.0, help="text to time per language")
    options.add_argument("--pairs", type=int, default=400, help="pairs planted per similarity")
    options.add_argument("--clustered", type=int, default=100_000, help="synthetic signatures to cluster")
    options.set_defaults(repetitions=3)
    chosen = options.parse_args(arguments)
    common.let_datatrove_hash()
    english = texts(chosen.corpus, "en", chosen.megabytes)
    korean = texts(chosen.corpus, "ko", chosen.megabytes)
    seconds = _timed(english, korean, chosen.clustered, chosen.repetitions)
    speed = {name: _megabytes(korean if "korean" in name else english) / taken for name, taken in seconds.items()}
    planted = {language: recall(texts(chosen.corpus, language, 10.0), chosen.pairs) for language in FOLDERS}

    def seconds_per_document(side: str) -> float:
        return seconds[f"{side}_signatures"] / len(english) + seconds[f"{side}_clusters"] / chosen.clustered

    common.report(
        "minhash",
        {
            "ours": {
                "signatures_mb_per_s": speed["ours_signatures"],
                "korean_signatures_mb_per_s": speed["ours_korean"],
                "clustered_documents_per_s": chosen.clustered / seconds["ours_clusters"],
                "recall": planted,
                "strangers_paired": strangers([*english[:1500], *korean[:1500]]),
            },
            "peers": {
                "datatrove": {
                    "signatures_mb_per_s": speed["peer_signatures"],
                    "clustered_documents_per_s": chosen.clustered / seconds["peer_clusters"],
                }
            },
            "ratio": seconds_per_document("peer") / seconds_per_document("ours"),
            "ratio_signatures": speed["ours_signatures"] / speed["peer_signatures"],
            "ratio_clusters": seconds["peer_clusters"] / seconds["ours_clusters"],
            "clustered_documents": chosen.clustered,
            "english_documents": len(english),
            "english_mb": _megabytes(english),
            "korean_mb": _megabytes(korean),
            "repetitions": chosen.repetitions,
        },
        chosen.json,
    )


def _timed(english: Sequence[str], korean: Sequence[str], clustered: int, repetitions: int) -> dict[str, float]:
    """Median seconds of both sides' signatures and clusters."""
    with tempfile.TemporaryDirectory() as folder:
        ours, peer = Ours(Path(folder) / "ours"), Peer(Path(folder) / "peer")
        seconds = common.interleaved(
            {
                "ours_signatures": lambda: ours.sign(english),
                "peer_signatures": lambda: peer.sign(english),
                "ours_korean": lambda: ours.sign(korean),
            },
            repetitions,
        )
        signatures = made_up_signatures(clustered)
        ours.keep(signatures)
        peer.keep(signatures)
        seconds |= common.interleaved({"ours_clusters": ours.cluster, "peer_clusters": peer.cluster}, repetitions)
    return seconds


class Ours:
    """Bucket keys of texts as one task's attributes, and their clusters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = load_recipe("configs/corpus.yaml", ["data.url_duplicates=false"])

    def sign(self, found: Sequence[str]) -> None:
        self._write(np.array([bucket_keys(text) for text in found]))

    def keep(self, signatures: Signatures) -> None:
        """Write given signatures instead of computing them."""
        keys = np.zeros(signatures.shape[:2], dtype=np.uint64)
        for row in range(SETTINGS.hashes_per_bucket):
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + signatures[:, :, row]
        self._write(keys)

    def _write(self, keys: Keys) -> None:
        names = score.bucket_columns(SETTINGS)
        ids = [f"{number:08d}" for number in range(len(keys))]
        # No two texts are equal: exact duplicates are not compared.
        exact = pa.array([identity.rjust(16).encode() for identity in ids], pa.binary(16))
        # Every pair that shares a key is compared and found to be similar.
        sketches = pa.array([bytes([1]) * minhash.BINS] * len(keys), pa.binary(minhash.BINS))
        columns = {"id": ids, "bytes": [1] * len(keys), "exact_hash": exact, "sketch": sketches} | {
            name: keys[:, n] for n, name in enumerate(names)
        }
        tables.write_table(tables.task_path(self.folder / "attributes", "s", 0), pa.table(columns))

    def cluster(self) -> None:
        scored: Any = SimpleNamespace(path=self.folder)
        dedup.build(self.recipe, scored, self.folder / "out", self.folder / "work", _InProcess())


class Peer:
    """datatrove's three stages."""

    def __init__(self, folder: Path) -> None:
        from datatrove.pipeline.dedup.minhash import MinhashConfig
        from datatrove.utils.hashing import HashConfig

        self.folder = folder
        self.config = MinhashConfig(
            hash_config=HashConfig(precision=64),
            num_buckets=SETTINGS.num_buckets,
            hashes_per_bucket=SETTINGS.hashes_per_bucket,
        )

    def sign(self, found: Sequence[str]) -> None:
        from datatrove.data import Document
        from datatrove.pipeline.dedup import MinhashDedupSignature

        shutil.rmtree(self.folder, ignore_errors=True)
        documents = (Document(text=text, id=str(number)) for number, text in enumerate(found))
        MinhashDedupSignature(str(self.folder / "signatures"), config=self.config).run(documents, 0, 1)

    def keep(self, signatures: Signatures) -> None:
        """Write signatures as MinhashDedupSignature does."""
        shutil.rmtree(self.folder, ignore_errors=True)
        hashes = SETTINGS.hashes_per_bucket
        fields = [*((f"field{row + 1}", "<u8") for row in range(hashes)), (f"field{hashes + 1}", "<I")]
        for bucket in range(SETTINGS.num_buckets):
            records = np.zeros(len(signatures), dtype=fields)
            for row in range(hashes):
                records[f"field{row + 1}"] = signatures[:, bucket, row]
            records[fields[-1][0]] = np.arange(len(signatures))
            records.sort(order=[name for name, _ in fields])
            path = self.folder / "signatures" / f"bucket_{bucket:03d}" / "00000.minhash.sig"
            path.parent.mkdir(parents=True)
            path.write_bytes(records.tobytes())

    def cluster(self) -> None:
        from datatrove.pipeline.dedup import MinhashDedupCluster
        from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets

        signatures, buckets = str(self.folder / "signatures"), str(self.folder / "buckets")
        for bucket in range(SETTINGS.num_buckets):
            MinhashDedupBuckets(signatures, buckets, config=self.config).run(None, bucket, SETTINGS.num_buckets)
        MinhashDedupCluster(buckets, str(self.folder / "removed"), config=self.config).run(None, 0, 1)


class _InProcess:
    """Runs tasks one after another."""

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        for rank in range(n_tasks):
            task(rank, n_tasks)


def made_up_signatures(count: int) -> Signatures:
    """Random signatures; a fifth of the documents share some buckets with an earlier document."""
    dice = np.random.default_rng(_SEED)
    signatures = dice.integers(0, 2**63, (count, SETTINGS.num_buckets, SETTINGS.hashes_per_bucket), dtype=np.uint64)
    for number in dice.choice(np.arange(1, count), count // 5, replace=False):
        buckets = dice.choice(SETTINGS.num_buckets, 4, replace=False)
        signatures[number, buckets] = signatures[dice.integers(number), buckets]
    return signatures


def recall(found: Sequence[str], pairs: int) -> dict[str, dict[str, float]]:
    """Intended similarity -> the mean actual one, the share of pairs found, and the share expected by theory."""
    bases = [text for text in found if len(text.split()) >= _FEWEST_WORDS]
    assert bases, "no text is long enough"
    results = {}
    for similarity in SIMILARITIES:
        real, hits = [], 0
        for number in range(pairs):
            text = bases[number % len(bases)]
            other = altered(text, similarity, f"{_SEED} {similarity} {number}")
            real.append(jaccard(text, other))
            hits += bool((bucket_keys(text) == bucket_keys(other)).any())
        expected = np.mean([1 - (1 - s**SETTINGS.hashes_per_bucket) ** SETTINGS.num_buckets for s in real])
        results[f"{similarity:.2f}"] = {
            "similarity": float(np.mean(real)),
            "found_share": hits / pairs,
            "expected_share": float(expected),
        }
    return results


def bucket_keys(text: str) -> Keys:
    return minhash.sign(minhash.words(text), SETTINGS).keys


def altered(text: str, similarity: float, seed: str) -> str:
    """The text with words replaced, far enough apart that each changes `ngram_words` n-grams."""
    words = text.split()
    n = SETTINGS.ngram_words
    grams = len(words) - n + 1
    # k replacements leave grams - kn of the n-grams in both, of grams + kn in either.
    count = max(1, round(grams * (1 - similarity) / (n * (1 + similarity))))
    dice = random.Random(seed)
    places = dice.sample(range(n, max(n + count, len(words) - n), n), min(count, (len(words) - 2 * n) // n))
    for place in places:
        words[place] = f"{dice.randrange(16**10):010x}"
    return " ".join(words)


def jaccard(one: str, other: str) -> float:
    """Exact similarity of the sets of n-grams."""
    first, second = (set(minhash.n_grams(minhash.words(text), SETTINGS.ngram_words).tolist()) for text in (one, other))
    return len(first & second) / len(first | second)


def strangers(found: Sequence[str]) -> dict[str, float]:
    """Pairs of different documents that share a bucket key, and how many of them are below a similarity of 0.5."""
    by_key: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, text in enumerate(found):
        for bucket, key in enumerate(bucket_keys(text).tolist()):
            by_key[bucket, key].append(number)
    pairs = {pair for members in by_key.values() for pair in combinations(members, 2)}
    wrong = sum(jaccard(found[one], found[other]) < _NEAR for one, other in pairs)
    return {
        "documents": len(found),
        "pairs": len(pairs),
        "pairs_below_half": wrong,
        "precision": 1 - wrong / len(pairs) if pairs else 1.0,
    }


def texts(corpus: Path, language: str, megabytes: float) -> list[str]:
    """Distinct texts of the language's folders, in equal parts."""
    limit = int(megabytes * 1e6 / len(FOLDERS[language]))
    found = (record["text"] for folder in FOLDERS[language] for record in common.records(corpus / folder, limit))
    return list(dict.fromkeys(found))


def _megabytes(found: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in found) / 1e6


if __name__ == "__main__":
    from loguru import logger

    logger.remove()
    sys.exit(main())
