"""Documents to token shards, end to end, and the engines alone: ours against datatrove, tokenizers and tiktoken.

    python -m benchmarks.encode --corpus DIR [--megabytes 40] [--vocab-size 102400] [--json OUT]

End to end, on one core and on two: each contestant begins in a new process, pinned to that many cores, and turns
the same Parquet files into shards; its start and imports count. Ours: the stage `shards` by our runner, with
side index, hashes and manifest. datatrove: ParquetReader and DocumentTokenizer by its local executor, one worker
a core. `encode_batch_fast`: the same reading and writing as ours in one process, with one thread a core. The
tokens of all are compared. The engines alone: the same text in memory, one core, one process; tiktoken where
it is installed (pip install tiktoken).

The tokenizer is trained on the same documents once, and kept in the folder for temporary files.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks import common
from benchmarks.tokenizer_variants import OneByOne
from configs.recipe import load_recipe
from configs.schema import Recipe
from twofold.artifacts import Artifact, StageSpec, digest, ensure, open_artifact

_FOLDERS = {
    "ko-text": ("general/ko-text/kowiki", "domain/law/kr-statutes"),
    "en-text": ("general/en-text/enwiki", "domain/code/sympy-py"),
}
"""Source of the smoke recipe -> folders of the corpus; a file of documents each."""
_ROWS = 1_000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.parser("encode", "Documents to token shards, ours and datatrove's.")
    parser.add_argument("--megabytes", type=float, default=40.0, help="of text")
    parser.add_argument("--vocab-size", type=int, default=102_400)
    parser.set_defaults(repetitions=3)
    options = parser.parse_args(arguments)
    world = Path(tempfile.gettempdir()) / "twofold-benchmark-encode"
    recipe = load_recipe("configs/smoke.yaml", [f"tokenizer.vocab_size={options.vocab_size}"])
    kept = documents(options.corpus, options.megabytes, world)
    tokenizer = trained(recipe, kept, world)
    megabytes = kept.counts["bytes"] / 1e6
    cores = [n for n in (1, 2) if n <= len(os.sched_getaffinity(0))]
    with tempfile.TemporaryDirectory() as folder:
        seconds = end_to_end(kept.path, tokenizer.path, Path(folder), cores, options.repetitions)
    speeds = {name: {cores: megabytes / taken for cores, taken in by.items()} for name, by in seconds.items()}
    ratios = {
        name: {cores: by[cores] / seconds["ours"][cores] for cores in by}
        for name, by in seconds.items()
        if name != "ours"
    }
    result = {
        "megabytes": megabytes,
        "documents": kept.counts["documents"],
        "vocab_size": options.vocab_size,
        "repetitions": options.repetitions,
        "ours": _figures(seconds["ours"], speeds["ours"]),
        "peers": {name: _figures(by, speeds[name]) for name, by in seconds.items() if name != "ours"},
        "ratios": {name: {_cores(n): ratio for n, ratio in by.items()} for name, by in ratios.items()},
        "ratio": min(ratios["datatrove"].values()),
        "engines_megabytes_per_s_one_core": engines(kept.path, tokenizer.path, options.repetitions),
    }
    common.report("encode", result, options.json)


def documents(corpus: Path, megabytes: float, world: Path) -> Artifact:
    """Kept documents of the corpus: four files of about equal size."""

    def build(out: Path, work: Path) -> dict[str, int]:
        counts = {"documents": 0, "bytes": 0}
        for source, folders in _FOLDERS.items():
            for number, folder in enumerate(folders):
                rows = list(common.records(corpus / folder, int(megabytes * 1e6 / 4)))
                texts = [row["text"] for row in rows]
                columns = {
                    "id": [row["id"] for row in rows],
                    "source": [source] * len(rows),
                    "domain": ["general"] * len(rows),
                    "language": [source[:2]] * len(rows),
                    "text": pa.array(texts, pa.large_string()),
                }
                path = out / "documents" / "train" / source / f"{number:05d}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=_ROWS)
                counts["documents"] += len(rows)
                counts["bytes"] += sum(len(text.encode()) for text in texts)
        return counts

    config = {"corpus": str(corpus.resolve()), "megabytes": megabytes, "folders": digest(_FOLDERS)}
    return ensure(world, StageSpec("write", 1, config, {}), build)


def trained(recipe: Recipe, kept: Artifact, world: Path) -> Artifact:
    """The tokenizer of the documents."""
    from tokenizer.stages import train

    spec = StageSpec("tokenizer", train.CODE_VERSION, train.config(recipe), {"write": kept.identity})
    return ensure(world, spec, lambda out, work: train.build(recipe, kept, out, work, OneByOne()))


def end_to_end(
    kept: Path, tokenizer: Path, folder: Path, cores: Sequence[int], repetitions: int
) -> dict[str, dict[int, float]]:
    """Contestant -> cores -> median seconds; the tokens are compared each time."""
    seconds: dict[str, dict[int, list[float]]] = {name: {n: [] for n in cores} for name in _CONTESTANTS}
    for _ in range(repetitions):
        for n in cores:
            for name in _CONTESTANTS:
                out = folder / name
                started = time.perf_counter()
                _in_new_process(name, kept, tokenizer, out, n)
                seconds[name][n].append(time.perf_counter() - started)
            ours = _tokens_of_ours(folder / "ours")
            for name in _CONTESTANTS:
                same = ours == _TOKENS[name](folder / name)
                assert same, f"{name} gives other tokens"
                shutil.rmtree(folder / name)
    return {name: {n: statistics.median(taken) for n, taken in by.items()} for name, by in seconds.items()}


def run_ours(kept: Path, tokenizer: Path, out: Path, cores: int) -> None:
    """The stage `shards`."""
    from launch.executors import task_runner
    from tokenizer.stages import tokenize

    recipe = load_recipe("configs/smoke.yaml", [f"data.executor.workers={cores}"])
    inputs = open_artifact(kept), open_artifact(tokenizer)
    with task_runner(recipe.data.executor, Console(quiet=True)) as runner:
        ensure(
            out,
            StageSpec("shards", tokenize.CODE_VERSION, tokenize.config(recipe), {}),
            lambda made, work: tokenize.build(recipe, *inputs, made, work, runner),
        )


def run_datatrove(kept: Path, tokenizer: Path, out: Path, cores: int) -> None:
    """DocumentTokenizer, one task a file."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    reader = ParquetReader(str(kept / "documents"), glob_pattern="**/*.parquet")
    path = str(tokenizer / "tokenizer.json")
    writer = DocumentTokenizer(str(out / "tokens"), path, eos_token="<|eos|>", shuffle_documents=False)
    tasks = len(list(kept.rglob("*.parquet")))
    LocalPipelineExecutor([reader, writer], tasks=tasks, workers=cores, logging_dir=str(out / "logs")).run()


def run_batch_fast(kept: Path, tokenizer: Path, out: Path, cores: int) -> None:
    """`encode_batch_fast` between our reading and our writing, with its own threads."""
    from tokenizer.shards import ShardWriter
    from twofold.special_ids import EOS_ID

    engine = _record(tokenizer)
    for path in sorted(kept.rglob("*.parquet")):
        with ShardWriter(out, f"{path.parent.name}-{path.stem}.ds") as writer:
            for batch in pq.ParquetFile(path).iter_batches(_ROWS):
                texts = batch["text"].to_pylist()
                ids = [[*encoding.ids, EOS_ID] for encoding in engine.encode_batch_fast(texts)]
                tokens = np.concatenate([np.array(part, np.uint32) for part in ids])
                ends = np.cumsum([len(part) for part in ids])
                rows = {name: batch[name] for name in ("id", "source", "language")}
                writer.add(tokens, ends, {**rows, "bytes": [len(text.encode()) for text in texts]})


def engines(kept: Path, tokenizer: Path, repetitions: int) -> dict[str, float]:
    """MB/s of each engine, from strings to ids, on the first rows of each file."""
    texts = [
        text
        for path in sorted(kept.rglob("*.parquet"))
        for text in next(pq.ParquetFile(path).iter_batches(_ROWS, columns=["text"]))["text"].to_pylist()
    ]
    size = sum(len(text.encode()) for text in texts)
    from tokenizer.encoder import Encoder

    ours, record = Encoder(tokenizer), _record(tokenizer)
    contestants: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.encode(texts),
        "tokenizers": lambda: [encoding.ids for encoding in record.encode_batch_fast(texts)],
    }
    try:
        import tiktoken
    except ImportError:
        common.CONSOLE.print("not run: tiktoken is missing (pip install tiktoken)")
    else:
        lines = (line.split() for line in (tokenizer / "tokenizer.tiktoken").read_bytes().splitlines())
        ranks = {base64.b64decode(piece): int(number) for piece, number in lines}
        encoding = tiktoken.Encoding(mergeable_ranks=ranks, **json.loads((tokenizer / "tiktoken.json").read_text()))
        contestants["tiktoken"] = lambda: [encoding.encode_ordinary(text) for text in texts]
    expected = contestants["ours"]()
    assert all(run() == expected for run in contestants.values()), "an engine gives other tokens"
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    seconds = common.interleaved(contestants, repetitions)
    os.sched_setaffinity(0, everywhere)
    return {name: size / 1e6 / taken for name, taken in seconds.items()}


def _in_new_process(name: str, kept: Path, tokenizer: Path, out: Path, cores: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_pinned, args=(name, kept, tokenizer, out, cores))
    process.start()
    process.join()
    assert process.exitcode == 0, f"{name} failed: {(out / 'log').read_text()[-2000:]}"


def _pinned(name: str, kept: Path, tokenizer: Path, out: Path, cores: int) -> None:
    out.mkdir(parents=True)
    with (out / "log").open("w") as log:  # datatrove's workers write there as well
        os.dup2(log.fileno(), 2)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    # One worker a core has one thread; the one process of encode_batch_fast has a thread a core.
    os.environ["RAYON_NUM_THREADS"] = str(cores if name == "encode_batch_fast" else 1)
    _CONTESTANTS[name](kept, tokenizer, out, cores)


def _record(tokenizer: Path) -> Any:
    from tokenizers import Tokenizer

    engine = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    engine.encode_special_tokens = True
    return engine


def _tokens(folder: Path, pattern: str, dtype: str = "<u4") -> list[int]:
    return np.concatenate([np.fromfile(path, dtype) for path in sorted(folder.glob(pattern))]).tolist()


def _tokens_of_ours(folder: Path) -> list[int]:
    return _tokens(folder / "shards" / "train", "*/*.ds")


def _tokens_of_datatrove(folder: Path) -> list[int]:
    """It writes two bytes a token for small vocabularies, and says so in its metadata."""
    token_bytes = next((folder / "tokens").glob("*.metadata")).read_text().splitlines()[0].rsplit("|", 1)[1]
    return _tokens(folder / "tokens", "*.ds", f"<u{token_bytes}")


_CONTESTANTS: dict[str, Callable[[Path, Path, Path, int], None]] = {
    "ours": run_ours,
    "datatrove": run_datatrove,
    "encode_batch_fast": run_batch_fast,
}
_TOKENS: dict[str, Callable[[Path], list[int]]] = {
    "ours": _tokens_of_ours,
    "datatrove": _tokens_of_datatrove,
    "encode_batch_fast": lambda folder: _tokens(folder, "*.ds"),
}


def _cores(n: int) -> str:
    return f"{n}_core{'s' if n > 1 else ''}"


def _figures(seconds: dict[int, float], speeds: dict[int, float]) -> dict[str, Any]:
    return {_cores(n): {"seconds": seconds[n], "megabytes_per_s": speeds[n]} for n in seconds}


if __name__ == "__main__":
    os.environ["RAYON_NUM_THREADS"] = "1"
    sys.exit(main())
