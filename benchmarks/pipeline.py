"""Raw WARC to written output: our stages against the same recipe built from datatrove's stock blocks.

    python -m benchmarks.pipeline --corpus DIR [--megabytes 20] [--json OUT]

English pages of the corpus are written into one WARC file. Ours runs extract, score (with line edits), dedup,
filter and write through the command line's own code with one worker, process start included. The peer runs
WarcReader, Trafilatura, Gopher repetition, Gopher quality, C4 and FineWeb quality filters, MinHash (signatures,
buckets, clusters, filter), PIIFormatter and JsonlWriter in its local executor with one worker in this process.
Both write what they keep; ours also writes every decision and the language of each document, for which the peer
would have to download a model. `profile` shows where our time goes: seconds in each function of `_PROFILED`,
callees included, in one run in this process. Needs warcio, faust-cchardet, python-magic, trafilatura and spacy (and
libmagic).
"""

from __future__ import annotations

import cProfile
import functools
import io
import logging
import pstats
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import common
from configs.schema import Recipe
from twofold.tasks import Task

_ENGLISH_PAGES = (
    "general/web-html/postgres-docs",
    "general/web-html/anarchist-faq",
    "general/web-html/debian-install-guide-en",
    "general/web-html/trafilatura-pages",
)
_STAGES = ("extract", "score", "dedup", "filter", "write")
_PROFILED = (
    *("html.main_text", "normalize.normalise", "line_rules.suspects", "repeated_lines.parts_of"),
    *("language.identify", "formulas.features", "minhash.sign", "pii.counts", "pii.mask"),
    *("dedup.build", "filter.build", "write.build", "core.write_table"),
)
_PEER_STEPS = ("read, extract, filter", "signatures", "buckets", "clusters", "deduplicate, mask, write")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.parser("pipeline", "Raw WARC to written output, ours and datatrove's.")
    parser.add_argument("--megabytes", type=float, default=20.0, help="of raw HTML")
    parser.set_defaults(repetitions=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        warc = Path(folder) / "pages.warc.gz"
        pages, raw_bytes = write_warc(options.corpus, warc, int(options.megabytes * 1e6))
        ours = _median_run(lambda out: run_ours(warc, out), Path(folder) / "ours", options.repetitions)
        profiled = profile(warc, Path(folder) / "profiled")
        peers = _median_run(lambda out: run_peers(warc, out), Path(folder) / "peers", options.repetitions)
    result = {
        "pages": pages,
        "raw_megabytes": raw_bytes / 1e6,
        "repetitions": options.repetitions,
        "ours": _figures(ours, raw_bytes),
        "peers": {"datatrove": _figures(peers, raw_bytes)},
        "profile_s": profiled,
        "ratio": sum(peers.values()) / sum(ours.values()),
    }
    common.report("pipeline", result, options.json)


def write_warc(corpus: Path, target: Path, limit_bytes: int) -> tuple[int, int]:
    """Write the corpus's English pages into a gzip WARC file; returns pages and bytes of HTML."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    pages = size = 0
    with target.open("wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        for folder in _ENGLISH_PAGES:
            for record in common.records(corpus / folder):
                body = record["html"].encode("utf-8", "replace")
                if record["lang"] != "en" or size + len(body) > limit_bytes:
                    continue
                content_type = [("Content-Type", "text/html; charset=utf-8")]
                headers = StatusAndHeaders("200 OK", content_type, protocol="HTTP/1.1")
                url = record.get("url") or f"http://pages.example/{pages}"
                # As in Common Crawl; otherwise the peer takes XHTML for XML and drops it.
                extra = {"WARC-Identified-Payload-Type": "text/html"}
                options = {"payload": io.BytesIO(body), "http_headers": headers, "warc_headers_dict": extra}
                writer.write_record(writer.create_warc_record(url, "response", **options))
                pages, size = pages + 1, size + len(body)
    return pages, size


def run_ours(warc: Path, out: Path) -> dict[str, float]:
    """Seconds of each stage, and of starting up."""
    from launch.runner import run_recipe

    started = time.perf_counter()
    seconds = dict(run_recipe(_recipe(warc, out), Console(quiet=True), until="write").seconds)
    return {"start": time.perf_counter() - started - sum(seconds.values()), **seconds}


def profile(warc: Path, out: Path) -> dict[str, float]:
    """Seconds in the functions that do the work; the profiler slows down Python code, but not compiled code."""
    from launch.stages import stages_of
    from twofold.artifacts import Artifact, ensure

    out.mkdir()
    recipe, artifacts, profiler = _recipe(warc, out), dict[str, Artifact](), cProfile.Profile()
    stages = [stage for stage in stages_of(recipe) if stage.name in _STAGES]
    profiler.enable()
    for stage in stages:
        build = functools.partial(stage.run, recipe, artifacts, _InProcess())
        artifacts[stage.name] = ensure(out, stage.specify(recipe, artifacts), build)
    profiler.disable()
    total = pstats.Stats(profiler)
    found = dict.fromkeys(_PROFILED, 0.0)
    for (file, _, name), (_, _, _, cumulative, _) in total.stats.items():  # type: ignore[attr-defined]
        key = f"{Path(file).stem}.{name}"
        if key in found:
            found[key] += cumulative
    return {"all": total.total_tt, **found}  # type: ignore[attr-defined]


class _InProcess:
    """Runs tasks one after another in this process, where the profiler sees them."""

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        for rank in range(n_tasks):
            task(rank, n_tasks)


def _recipe(warc: Path, out: Path) -> Recipe:
    from configs.recipe import load_recipe

    source = f"{{path: {warc}, format: warc, languages: [en], license: various}}"
    file = out.parent / "recipe.yaml"
    file.write_text(
        f"extends: {Path('configs/base.yaml').resolve()}\nname: pages\nseed: 1\nrun_dir: {out}\n"
        f"sources: {{pages: {source}}}\n"
        "data: {executor: {workers: 1}}\n"
        "tokenizer: {vocab_size: 1024}\nmodel: {d_model: 16, n_layers: 1, n_heads: 2, n_kv_heads: 1, d_ff: 32}\n"
        "phases: [{name: general, tokens: 4096, sequence_length: 32, global_batch_size: 1024, "
        "lr_scheduler: {lr: 1e-3}, mixture: {pages: 1}}]\n"
        "engine: {micro_batch_size: 1}\ncheckpoints: {every: 4096}\nvalidation: {every: 4096}\n"
        "launch: {device: cpu}\n"
    )
    return load_recipe(str(file))


def run_peers(warc: Path, out: Path) -> dict[str, float]:
    """Seconds of each executor."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import JsonlReader, WarcReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    common.let_datatrove_hash()
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8)
    filtered, signatures, buckets, removed = (
        str(out / name) for name in ("filtered", "signatures", "buckets", "removed")
    )
    reader = WarcReader(str(warc.parent), glob_pattern=warc.name)
    quality = (GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter())
    written = JsonlWriter(str(out / "written"))
    chain: list[list[Any]] = [
        [reader, Trafilatura(timeout=60), GopherRepetitionFilter(), *quality, JsonlWriter(filtered)],
        [JsonlReader(filtered), MinhashDedupSignature(signatures, config=config)],
        [MinhashDedupBuckets(signatures, buckets, config=config)],
        [MinhashDedupCluster(buckets, removed, config=config)],
        [JsonlReader(filtered), MinhashDedupFilter(removed), PIIFormatter(), written],
    ]
    seconds = {}
    for name, pipeline in zip(_PEER_STEPS, chain, strict=True):
        tasks = config.num_buckets if name == "buckets" else 1
        started = time.perf_counter()
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(out / f"logs-{len(seconds)}")).run()
        seconds[name] = time.perf_counter() - started
    return seconds


def _median_run(run: Callable[[Path], dict[str, float]], out: Path, repetitions: int) -> dict[str, float]:
    """Seconds of each part of the median run."""
    runs = []
    for _ in range(repetitions):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        runs.append(run(out))
    return sorted(runs, key=lambda parts: sum(parts.values()))[len(runs) // 2]


def _figures(parts: dict[str, float], raw_bytes: int) -> dict[str, Any]:
    total = sum(parts.values())
    return {"seconds": total, "raw_megabytes_per_s": raw_bytes / 1e6 / total, "parts_s": parts}


def _quiet() -> None:
    from loguru import logger

    logger.remove()
    logging.disable(logging.WARNING)


if __name__ == "__main__":
    _quiet()
    sys.exit(main())
