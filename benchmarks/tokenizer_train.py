"""Counting and training at 102,400 beside Hugging Face's trainer and rustbpe, and growth with distinct words.

    python -m benchmarks.tokenizer_train --corpus DIR [--megabytes N] [--json OUT]

Contract: the same documents, pattern (`exaone3-code`) and number of merges for all; each contestant is a process
of its own with both cores, which reads the documents from Parquet, and is watched from outside: seconds are from
the first document to the last merge (imports and compiling not counted), memory is the peak of the process and
its workers together (proportional set size, every 50 ms). Medians over the repetitions, contestants in turn.

- comparison: ours (counting by tasks in two processes, then merges in one), BpeTrainer, rustbpe.
- counting: one core, from Parquet to files of counts; and Python's Counter over the words of `tokenizers`.
- growth: synthetic tables of distinct Korean words, seconds and memory of training on each.
rustbpe is not a dependency: pip install rustbpe.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import common
from benchmarks.tokenizer_variants import OneByOne
from configs.schema import Tokenizer
from tokenizer.engine import Words, pretokenize
from tokenizer.patterns import PATTERNS
from tokenizer.training.count_words import count_words, training_files
from tokenizer.training.learn import learn_words
from tokenizer.training.word_files import BATCH_WORDS, record_batch, write_batches
from twofold.tasks import Task

PATTERN = "exaone3-code"
MERGES = 102_400 - 364 - 256
_SOURCES = "general/*-text/*", "domain/*/*"
_FILE_BYTES = 16_000_000
_ROWS = 1_000
_WATCH_SECONDS = 0.05
_COUNTER_BYTES = 20_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report; in a child, run one contestant and print what it measured."""
    options = common.parser("tokenizer_train", "Counting and training, beside other trainers.")
    options.set_defaults(repetitions=3)
    options.add_argument("--megabytes", type=float, default=130, help="of text, the same share of every source")
    options.add_argument("--merges", type=int, default=MERGES)
    options.add_argument("--words", type=int, nargs="*", default=[1_000_000, 2_500_000, 5_000_000, 10_000_000])
    options.add_argument("--contestant", help="run this one in this process (what the benchmark starts)")
    options.add_argument("--folder", type=Path, help="of what the contestant reads")
    chosen = options.parse_args(arguments)
    if chosen.contestant:
        print(json.dumps(CONTESTANTS[chosen.contestant](chosen.folder, chosen.merges)))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        folder = Path(scratch)
        size = write_documents(chosen.corpus, folder, int(chosen.megabytes * 1e6))
        found = compare(folder, chosen.merges, chosen.repetitions)
        growth = {f"{words}": measure_growth(folder, words, chosen.merges) for words in chosen.words}
    ours, peers = found.pop("ours"), {name: found[name] for name in ("BpeTrainer", "rustbpe")}
    counting, counter = found["counting"], found["counter"]
    speed, python = size / 1e6 / counting["seconds"], counter["bytes"] / 1e6 / counter["seconds"]
    common.report(
        "tokenizer_train",
        {
            "ours": {**ours, "counting_mb_per_s_a_core": speed, "growth_by_distinct_words": growth},
            "peers": {**peers, "Counter": {"counting_mb_per_s_a_core": python}},
            "ratio": {
                **{f"seconds_{name}": peer["seconds"] / ours["seconds"] for name, peer in peers.items()},
                **{f"memory_{name}": peer["peak_gb"] / ours["peak_gb"] for name, peer in peers.items()},
                "counting": speed / python,
            },
            "text_mb": size / 1e6,
            "merges": chosen.merges,
            "repetitions": chosen.repetitions,
        },
        chosen.json,
    )


def compare(folder: Path, merges: int, repetitions: int) -> dict[str, dict[str, float]]:
    """Medians of each contestant, run in turn."""
    run("counting", folder, merges)  # compiles, and fills the cache of files
    measure_growth(folder, 1_000, 100)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS if name != "growth"}
    for _ in range(repetitions):
        for name, results in runs.items():
            results.append(run(name, folder, merges))
    return {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in runs.items()
    }


def run(contestant: str, folder: Path, merges: int) -> dict[str, float]:
    """What a contestant in a process of its own measured, and `peak_gb`."""
    command = [sys.executable, "-m", "benchmarks.tokenizer_train", "--contestant", contestant]
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen([*command, "--folder", str(folder), "--merges", str(merges)], stdout=output)
        peak = 0
        while child.poll() is None:
            peak = max(peak, memory_of(child.pid))
            time.sleep(_WATCH_SECONDS)
        output.seek(0)
        if child.returncode:
            raise SystemExit(f"{contestant} failed (rustbpe: pip install rustbpe)")
        return {**json.loads(output.read().splitlines()[-1]), "peak_gb": peak / 1e9}


def memory_of(pid: int) -> int:
    """Bytes of a process and all it started, shared pages counted once."""
    total = 0
    try:
        for process in (parent := psutil.Process(pid), *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:  # one has just ended
        return 0
    return total


# --- contestants -------------------------------------------------------------------------------


def train_ours(folder: Path, merges: int) -> dict[str, float]:
    """As the stage does it, with two workers."""
    with tempfile.TemporaryDirectory(dir=folder) as work, ProcessPoolExecutor(2) as pool:
        runner = _InPool(pool)
        runner.run("start workers", _import, 2, Path(work))
        started = time.perf_counter()
        counted = count_words(folder, Tokenizer(), [PATTERN], Path(work), runner)[PATTERN]
        counting = time.perf_counter() - started
        pieces = learn_words(counted.path, merges)
        seconds = time.perf_counter() - started
    measured = {"seconds": seconds, "counting_seconds": counting}
    return {**measured, "pieces": len(pieces), "words": counted.distinct_words}


def train_theirs(folder: Path, merges: int) -> dict[str, float]:
    """Hugging Face's trainer."""
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Engine

    engine = Engine(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS[PATTERN]), behavior="isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256 + merges, show_progress=False, initial_alphabet=alphabet)
    started = time.perf_counter()
    engine.train_from_iterator(_batches(folder), trainer)
    return {"seconds": time.perf_counter() - started, "pieces": engine.get_vocab_size() - 256}


def train_rustbpe(folder: Path, merges: int) -> dict[str, float]:
    """nanochat's trainer."""
    import rustbpe

    engine = rustbpe.Tokenizer()
    started = time.perf_counter()
    texts = (text for batch in _batches(folder) for text in batch)
    engine.train_from_iterator(texts, 256 + merges, pattern=PATTERNS[PATTERN])
    return {"seconds": time.perf_counter() - started, "pieces": engine.vocab_size - 256}


def count_ours(folder: Path, merges: int) -> dict[str, float]:
    """Documents to the table of words, on one core."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        started = time.perf_counter()
        count_words(folder, Tokenizer(), [PATTERN], Path(work), OneByOne())
        return {"seconds": time.perf_counter() - started}


def count_in_python(folder: Path, merges: int) -> dict[str, float]:
    """Python's Counter over the words of `tokenizers`, on one core, on the first documents."""
    from tokenizers import Regex, pre_tokenizers

    cut = pre_tokenizers.Split(Regex(PATTERNS[PATTERN]), behavior="isolated").pre_tokenize_str
    counts: Counter[str] = Counter()
    started, size = time.perf_counter(), 0
    for batch in _batches(folder):
        for text in batch:
            counts.update(word for word, _ in cut(text))
            size += len(text.encode())
        if size > _COUNTER_BYTES:
            break
    return {"seconds": time.perf_counter() - started, "bytes": size}


def train_on_synthetic(folder: Path, merges: int) -> dict[str, float]:
    """Training on the table that `measure_growth` wrote."""
    started = time.perf_counter()
    pieces = learn_words(folder / "synthetic.arrow", merges)
    return {"seconds": time.perf_counter() - started, "pieces": len(pieces)}


CONTESTANTS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "ours": train_ours,
    "BpeTrainer": train_theirs,
    "rustbpe": train_rustbpe,
    "counting": count_ours,
    "counter": count_in_python,
    "growth": train_on_synthetic,
}


@dataclass(frozen=True)
class _InPool:
    """A runner of processes."""

    pool: ProcessPoolExecutor

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        for future in [self.pool.submit(task, rank, n_tasks) for rank in range(n_tasks)]:
            future.result()


def _import(rank: int, world_size: int) -> None:
    """A task that starts its process, imports this module and compiles the pattern."""
    pretokenize(np.zeros(0, np.uint8), np.zeros(0, np.int64), PATTERNS[PATTERN])


# --- data --------------------------------------------------------------------------------------


def write_documents(corpus: Path, folder: Path, limit_bytes: int) -> int:
    """The corpus as kept documents, the same share of each source; returns bytes of text."""
    sources = [path for pattern in _SOURCES for path in sorted(corpus.glob(pattern)) if path.is_dir()]
    texts = {path: [r["text"] for r in common.records(path) if r.get("text")] for path in sources}
    sizes = {path: np.cumsum([len(text.encode()) for text in own]) for path, own in texts.items() if own}
    share = min(1.0, limit_bytes / sum(int(ends[-1]) for ends in sizes.values()))
    total = 0
    for path, ends in sizes.items():
        taken = int(np.searchsorted(ends, share * ends[-1], side="right"))
        total += int(ends[taken - 1]) if taken else 0
        borders = np.flatnonzero(np.diff(ends[:taken] // _FILE_BYTES)) + 1
        for number, part in enumerate(np.split(np.arange(taken), borders)):
            own = [texts[path][place] for place in part]
            names = [f"{path.name}/{place}" for place in part]
            target = folder / "documents" / "train" / path.name / f"{number:05d}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            table = pa.table({"id": names, "text": pa.array(own, pa.large_string())})
            pq.write_table(table, target, compression="zstd", row_group_size=_ROWS)
    return total


def measure_growth(folder: Path, words: int, merges: int) -> dict[str, float]:
    """Training on `words` distinct words of 2 to 5 syllables, their counts by Zipf's law."""
    write_batches(folder / "synthetic.arrow", _synthetic(words))
    return run("growth", folder, merges)


def _synthetic(words: int) -> Iterator[pa.RecordBatch]:
    """Word number i is a blank and the digits of i in base 40, each a syllable that depends on its place too."""
    for first in range(0, words, BATCH_WORDS):
        numbers = np.arange(first, min(first + BATCH_WORDS, words))
        pieces = []
        for number in numbers.tolist():
            digits = []
            while number or not digits:
                number, digit = divmod(number, 40)
                digits.append(chr(0xAC00 + 28 * (40 * len(digits) + digit)))
            pieces.append(f" {''.join(digits)}".encode())
        bounds = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        counts = 20 * words // (numbers + 1) + 1
        yield record_batch(Words(np.frombuffer(b"".join(pieces), np.uint8), bounds, counts))


def _batches(folder: Path) -> Iterator[list[Any]]:
    for _, path in training_files(folder):
        for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=["text"]):
            yield batch["text"].to_pylist()


if __name__ == "__main__":
    main()
