"""Documents -> edited documents and attributes: everything measured about each text, in one pass over it.

Contract: writes, row-aligned with extract's documents,

    attributes/<source>/<task:05d>.parquet  `id`, `bytes` (UTF-8), `language` (ko | en | other, or `code` for sources
                                            of that kind), every feature of configs/features.py, `domain_label` and
                                            `domain_score` (null and 0 without a domain classifier), `pii_<type>`
                                            counts, `exact_hash` (16 bytes, of the lower-cased words), `url_hash`
                                            (16 bytes, of the canonical URL; null if there is none),
                                            `sketch` (features/minhash.py), and `minhash_<bucket>` keys
                                            if near duplicates are looked for
    documents/<source>/<task:05d>.parquet   extract's columns; only `text` differs
    edits/<source>/<task:05d>.parquet       one row per edited line (data_pipeline/stages/lines.py)

The last two only if the recipe has data.lines; `documents(extract, score)` is the artifact with the texts that
were measured. Nothing depends on a bound, so thresholds change without reading text again. The models know
prose only: text of kind `code` has language_score and quality_score 1, toxicity_score 0 and the domain code.
Cost: about 3 MB/s per core, and before it a pass at 40 MB/s if repeated lines are counted; memory for one row
group and the hashes of repeated lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from configs.data_schema import Lines, NearDuplicates
from configs.features import FEATURES, formula_table
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.classification.fasttext_model import Predictor
from data_pipeline.features import formulas, language, minhash, pii, urls
from data_pipeline.stages import classifiers as classifiers_stage
from data_pipeline.stages import extract as extract_stage
from data_pipeline.stages import lines, repeated_lines
from twofold.artifacts import Artifact
from twofold.files import write_json
from twofold.stage import Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 10
"""Raise it also when the spam terms in data_pipeline/features/lexicons.py change."""

_SIGNATURE = {"enabled", "ngram_words", "num_buckets", "hashes_per_bucket"}
_MEASURED = ["id", "kind", "url", "text"]


def config(recipe: Recipe) -> dict[str, Any]:
    """Line rules, near-duplicate settings and the formulas of features; documents and classifiers are inputs."""
    settings = recipe.data.model_dump(mode="json", include={"lines": True, "near_duplicates": _SIGNATURE})
    return {**settings, "features": formula_table()}


def build(
    recipe: Recipe, extract: Artifact, classifiers: Artifact | None, out: Path, work: Path, runner: TaskRunner
) -> Mapping[str, Any]:
    """Edit and measure every document; returns documents by language, and the edits."""
    settings, extracted = recipe.data.lines, extract.path / "documents"
    repeated = None
    if settings and settings.repeated_in_documents is not None:
        limits = repeated_lines.Limits(settings.repeated_in_documents, settings.repeated_in_share)
        repeated = repeated_lines.find(extracted, work, limits, settings.repeated_min_bytes, runner)
    models = classifiers.path if classifiers else None
    staying = frozenset(
        name
        for name, source in recipe.sources.items()
        if settings and {name, source.domain} & {*settings.repeated_stay_in}
    )
    files = tuple(tables.task_files(extracted))
    task = _Score(settings, repeated, staying, recipe.data.near_duplicates, files, models, out, work)
    runner.run("score documents", task, len(files), work / "score")

    languages: Counter[str] = Counter()
    edits: dict[str, Counter[str]] = {source: Counter() for source, _, _ in files}
    for source, number, _ in files:
        table = tables.read_table(tables.task_path(out / "attributes", source, number), ["language"])
        languages.update(table["language"].to_pylist())
        if settings:
            edits[source].update(tables.read_json(tables.task_path(work / "counts", source, number, "json")))
    counts = {"documents": languages.total(), "languages": dict(languages.most_common())}
    return {**counts, "lines": lines.summary(edits)} if settings else counts


STAGE = Stage(
    name="score", makes="documents with lines edited, features", code_version=CODE_VERSION, config=config, build=build
)


def documents(extract: Artifact, score: Artifact) -> Artifact:
    """The artifact whose `documents/` were measured: score's, or extract's if no lines are edited."""
    return score if (score.path / "documents").is_dir() else extract


def schema(settings: NearDuplicates) -> pa.Schema:
    """The columns of the attributes."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("bytes", pa.int64()),
            ("language", pa.string()),
            *((name, pa.float64()) for name in FEATURES),
            ("domain_label", pa.string()),
            ("domain_score", pa.float64()),
            *((f"pii_{kind}", pa.int32()) for kind in pii.TYPES),
            ("exact_hash", pa.binary(16)),
            ("url_hash", pa.binary(16)),
            ("sketch", pa.binary(minhash.BINS)),
            *((name, pa.uint64()) for name in bucket_columns(settings)),
        ]
    )


def bucket_columns(settings: NearDuplicates) -> list[str]:
    """The names of the columns of MinHash bucket keys; none if near duplicates are not looked for."""
    return [f"minhash_{bucket:02d}" for bucket in range(settings.num_buckets)] if settings.enabled else []


def attributes(text: str, kind: str, settings: NearDuplicates, models: Mapping[str, Predictor]) -> dict[str, Any]:
    """Every attribute of one document except `id` and `url_hash`."""
    is_code = kind == "code"
    detected, language_score = ("code", 1.0) if is_code else language.identify(text)
    words = minhash.words(text)
    keys, sketch = minhash.sign(words, settings)
    return {
        "bytes": len(text.encode()),
        "language": detected,
        **formulas.features(text, detected),
        "language_score": language_score,
        **_scores(text, is_code, models),
        **{f"pii_{name}": count for name, count in pii.counts(text, is_code).items()},
        "exact_hash": xxhash.xxh3_128_digest(words),
        "sketch": sketch,
        **dict(zip(bucket_columns(settings), keys.tolist(), strict=True)),
    }


def _scores(text: str, is_code: bool, models: Mapping[str, Predictor]) -> dict[str, Any]:
    label, score = (None, 0.0) if "domain" not in models else ("code", 1.0)
    if "domain" in models and not is_code:
        label, score = models["domain"].label_and_probability(text)
    return {
        "quality_score": 1.0 if is_code or "quality" not in models else models["quality"].probability(text),
        "toxicity_score": 0.0 if is_code or "toxicity" not in models else models["toxicity"].probability(text),
        "domain_label": label,
        "domain_score": score,
    }


@dataclass(frozen=True)
class _Score:
    """Task `rank` edits and measures the `rank`-th file of documents."""

    lines: Lines | None
    repeated: repeated_lines.Repeated | None
    repeated_stay_in: frozenset[str]
    """Sources that keep their repeated lines."""
    near_duplicates: NearDuplicates
    files: tuple[tuple[str, int, Path], ...]
    models: Path | None
    out: Path
    work: Path

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = self.files[rank]
        models = classifiers_stage.load(self.models) if self.models else {}
        target = tables.task_path(self.out / "attributes", source, number)
        with self._editing(source, number) as edit, tables.row_writer(target, schema(self.near_duplicates)) as write:
            for group in tables.row_groups(path, None if self.lines else _MEASURED):
                for row in edit(group).select(_MEASURED).to_pylist():
                    measured = attributes(row["text"], row["kind"], self.near_duplicates, models)
                    write({"id": row["id"], "url_hash": urls.url_hash(row["url"]), **measured})

    @contextmanager
    def _editing(self, source: str, number: int) -> Iterator[Callable[[pa.Table], pa.Table]]:
        """Yield a function that edits a row group; it also writes the documents and the edits."""
        if self.lines is None:
            yield lambda group: group
            return
        repeats = repeated_lines.NO_REPEATS
        if self.repeated and source not in self.repeated_stay_in:
            repeats = self.repeated.of_task(source, number)
        editor = lines.LineEditor(self.lines, repeats)
        documents_path, edits_path = (
            tables.task_path(self.out / folder, source, number) for folder in ("documents", "edits")
        )
        with (
            tables.table_writer(documents_path, extract_stage.DOCUMENTS) as documents,
            tables.table_writer(edits_path, lines.EDITS) as edits,
        ):

            def edit(group: pa.Table) -> pa.Table:
                edited, records = editor.edit(group)
                documents.write_table(edited)
                if records.num_rows:
                    edits.write_table(records)
                return edited

            yield edit
        write_json(tables.task_path(self.work / "counts", source, number, "json"), editor.counts)
