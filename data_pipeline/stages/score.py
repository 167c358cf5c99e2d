"""Documents -> attributes: every feature, language, quality, personal data counts, hashes. No thresholds.

Contract: writes `attributes/<source>/<task:05d>.parquet`, row-aligned with extract's documents:
`id`, `bytes` (UTF-8), `language` (ko | en | other, or `code` for sources of that kind), every feature
of configs/features.py (the classifiers' scores among them), `domain_label` and `domain_score` (null and 0
without a domain classifier), `pii_<type>` counts, `exact_hash` (16 bytes, of the lower-cased words),
`url_hash` (16 bytes, of the canonical address; null where there is none), and `minhash_<bucket>` keys where
near duplicates are looked for. Nothing depends on a bound, so thresholds
change without reading text again. The models know prose only: text of kind `code` has language_score and
quality_score 1, toxicity_score 0 and the domain code. Cost: about 3 MB/s a core; memory one row group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import xxhash

from configs.data_schema import NearDuplicates
from configs.features import FEATURES, formula_table
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.classification.fasttext_model import Predictor
from data_pipeline.features import formulas, language, minhash, pii, urls
from data_pipeline.stages import classifiers
from twofold.artifacts import Artifact
from twofold.stage import From, Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 3


def config(recipe: Recipe) -> dict[str, Any]:
    """Near-duplicate settings and the formulas of features; documents and classifiers are inputs."""
    return {"near_duplicates": recipe.data.near_duplicates.model_dump(mode="json"), "features": formula_table()}


def build(
    recipe: Recipe,
    documents: Annotated[Artifact, From("lines", "extract")],
    classified: Annotated[Artifact | None, From("classifiers")],
    out: Path,
    work: Path,
    runner: TaskRunner,
) -> Mapping[str, Any]:
    """Score every document; returns the documents counted by language."""
    models = classified.path if classified else None
    task = _Score(recipe.data.near_duplicates, documents.path / "documents", models, out / "attributes")
    files = tables.task_files(task.documents)
    runner.run("score documents", task, len(files), work / "score")
    languages: Counter[str] = Counter()
    for source, number, _ in files:
        table = tables.read_table(tables.task_path(task.attributes, source, number), ["language"])
        languages.update(table["language"].to_pylist())
    return {"documents": languages.total(), "languages": dict(languages.most_common())}


STAGE = Stage(
    name="score",
    makes="features",
    code_version=CODE_VERSION,
    config=config,
    build=build,
)


def schema(settings: NearDuplicates) -> pa.Schema:
    """The attributes' columns."""
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
            *((name, pa.uint64()) for name in bucket_columns(settings)),
        ]
    )


def bucket_columns(settings: NearDuplicates) -> list[str]:
    """Names of the columns of MinHash bucket keys; none where near duplicates are not looked for."""
    return [f"minhash_{bucket:02d}" for bucket in range(settings.num_buckets)] if settings.enabled else []


def attributes(text: str, kind: str, settings: NearDuplicates, models: Mapping[str, Predictor]) -> dict[str, Any]:
    """Every attribute of one document but its id."""
    is_code = kind == "code"
    detected, language_score = ("code", 1.0) if is_code else language.identify(text)
    keys = minhash.bucket_keys(text, settings).tolist() if settings.enabled else []
    return {
        "bytes": len(text.encode()),
        "language": detected,
        **formulas.features(text, detected),
        "language_score": language_score,
        **_scores(text, is_code, models),
        **{f"pii_{name}": count for name, count in pii.counts(text).items()},
        "exact_hash": xxhash.xxh3_128_digest(" ".join(text.lower().split()).encode()),
        **dict(zip(bucket_columns(settings), keys, strict=True)),
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
    """Task `rank` scores the `rank`-th file of documents."""

    settings: NearDuplicates
    documents: Path
    models: Path | None
    attributes: Path

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = tables.task_files(self.documents)[rank]
        target = tables.task_path(self.attributes, source, number)
        tables.write_rows(target, schema(self.settings), self._rows(path))

    def _rows(self, path: Path) -> Iterator[tables.Row]:
        models = classifiers.load(self.models) if self.models else {}
        for row in tables.read_rows(path, ["id", "kind", "url", "text"]):
            found = attributes(row["text"], row["kind"], self.settings, models)
            yield {"id": row["id"], "url_hash": urls.url_hash(row["url"]), **found}
