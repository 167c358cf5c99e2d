"""`twofold data-report`: the data on one page, with thresholds that can be moved.

Contract: one self-contained file: no network, one script whose hash the page's content policy names, every
text of a document escaped, in the mark-up and in the script's data. The page judges a sample of the decisions
(launch/reports/document_sample.py) again in the browser, as data_pipeline/stages/filter.py does, whenever a
threshold moves;
the figures for all documents are those of the decisions. `#ko.words.min=60` after the address moves a
threshold, so a view can be shared. Reads the decisions' columns and a few hundred texts.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from markupsafe import Markup

from configs.features import FEATURES
from configs.schema import Recipe
from configs.units import format_bytes
from data_pipeline import tables
from data_pipeline.decisions import rules as verdicts
from data_pipeline.features import pii
from data_pipeline.stages import decontaminate, dedup
from launch import reports
from launch.reports import document_sample
from launch.runner import existing
from twofold import VERSION
from twofold.artifacts import Artifact
from twofold.errors import user_error
from twofold.files import atomic_path

SCORES = ("language_score", "quality_score", "toxicity_score")
FIXED = (
    *(verdicts.LICENCE_REFUSED, verdicts.HOST_REFUSED, verdicts.URL_WORD, verdicts.WRONG_LANGUAGE),
    *(verdicts.PERSONAL_INFORMATION, verdicts.CONTAMINATED),
)
"""Reasons that no threshold moves; the first `BEFORE_RULES` of them come before the rules' own."""
BEFORE_RULES = 4
_EACH_SIDE = 2
_CLUSTERS, _MEMBERS = 8, 3
_SCRIPT = reports.TEMPLATES / "data_report.js"
Row = dict[str, Any]


def write(recipe: Recipe, out: Path | None, size: int) -> Path:
    """Draw the page; returns where it is."""
    if size < 1:
        raise user_error("--sample", size, "shows nothing", "give a positive number of documents")
    made = existing(recipe)
    if "filter" not in made:
        raise user_error("RECIPE", recipe.name, "has no decisions yet", "run `twofold run RECIPE --until filter`")
    target = out or Path(recipe.run_dir) / "data_report.html"
    with atomic_path(target) as partial:
        partial.write_text(render(recipe, made, size), encoding="utf-8")
    return target


def render(recipe: Recipe, made: Mapping[str, Artifact], size: int) -> str:
    """The page."""
    counts = made["filter"].counts
    found = document_sample.sample(made["filter"].path / "decisions", counts["read"], size)
    script = _SCRIPT.read_text(encoding="utf-8")
    return reports.render(
        "data_report.html",
        recipe=recipe,
        version=VERSION,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        counts=counts,
        kept_size=format_bytes(counts["kept_bytes"]),
        sampled=found.num_rows,
        languages=_languages(counts),
        rejects=_summed(made["extract"].counts, "rejects"),
        personal=_personal(counts),
        kinds=pii.TYPES,
        policy=recipe.data.personal_information,
        licenses=_licenses(made["filter"].path / "decisions"),
        lines=made["lines"].counts if "lines" in made else None,
        benchmarks=_benchmarks(made.get("decontaminate")),
        duplicates=made["dedup"].counts,
        clusters=_clusters(made),
        data=Markup(as_script_data(_data(recipe, made, found))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def as_script_data(value: Any) -> str:
    """JSON that no text in it can end: `<`, `>`, `&` and the line ends of JavaScript are written as escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _data(recipe: Recipe, made: Mapping[str, Artifact], found: pa.Table) -> Row:
    """What the script reads: columns of the sample, rules, samples near their thresholds."""
    profiles = {
        language: {
            feature: {side: limit for side in ("min", "max") if (limit := getattr(bound, side)) is not None}
            for feature, bound in getattr(recipe.data.rules, language).items()
        }
        for language in ("ko", "en", "code")
    }
    features = [name for name in FEATURES if name in SCORES or any(name in rules for rules in profiles.values())]
    sources, languages = list(recipe.sources), sorted(set(found["language"].to_pylist()))
    return {
        "features": features,
        "meanings": {name: FEATURES[name] for name in features},
        "rules": profiles,
        "scores": SCORES,
        "sources": sources,
        "languages": languages,
        "fixed": FIXED,
        "beforeRules": BEFORE_RULES,
        "columns": {
            "source": [sources.index(name) for name in found["source"].to_pylist()],
            "language": [languages.index(name) for name in found["language"].to_pylist()],
            "bytes": found["bytes"].to_pylist(),
            "fixed": [_bits(reasons) for reasons in found["reasons"].to_pylist()],
            **{kind: _numbered(found[kind]) for kind in ("cluster", "exact_cluster", "url_cluster")},
            "values": [[_short(value) for value in found[name].to_pylist()] for name in features],
        },
        "near": _near(made, found, profiles),
    }


def _bits(reasons: list[str]) -> int:
    return sum(1 << number for number, reason in enumerate(FIXED) if reason in reasons)


def _short(value: float) -> float | int:
    """Whole numbers without `.0`; others exactly, so that the page judges as the stage does."""
    return int(value) if value == int(value) else value


def _numbered(column: pa.ChunkedArray) -> list[int]:
    """Names as numbers; -1 for none."""
    numbers: dict[str, int] = {}
    return [-1 if name is None else numbers.setdefault(name, len(numbers)) for name in column.to_pylist()]


def _near(made: Mapping[str, Artifact], found: pa.Table, profiles: Mapping[str, Any]) -> dict[str, list[Row]]:
    """`ko.words.min` -> documents of the sample around that threshold."""
    wanted = {
        f"{language}.{feature}.{side}": document_sample.nearest(found, language, feature, bound, _EACH_SIDE)
        for language, rules in profiles.items()
        for feature, bounds in rules.items()
        for side, bound in bounds.items()
    }
    rows = sorted({row for chosen in wanted.values() for row in chosen})
    where = dict(zip(rows, document_sample.places(found, rows), strict=True))
    texts = document_sample.excerpts((made.get("lines") or made["extract"]), where.values())
    ids, decisions = found["id"], found["decision"]
    return {
        name: [
            {
                "id": ids[row].as_py(), "value": found[name.split(".")[1]][row].as_py(),
                "decision": decisions[row].as_py(), "text": texts[where[row]],
            }
            for row in chosen
        ]
        for name, chosen in wanted.items()
    }  # fmt: skip


# --- figures for all documents, from counts ----------------------------------------------------


def _languages(counts: Mapping[str, Any]) -> dict[str, Counter[str]]:
    totals: dict[str, Counter[str]] = {}
    for source in counts["sources"].values():
        for language, tally in source["languages"].items():
            totals.setdefault(language, Counter()).update(tally)
    return dict(sorted(totals.items()))


def _summed(counts: Mapping[str, Any], field: str) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for source in counts["sources"].values():
        totals.update(source[field])
    return dict(totals.most_common())


def _personal(counts: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
    return {
        name: source["personal_information"]
        for name, source in counts["sources"].items()
        if source["personal_information"]
    }


def _licenses(decisions: Path) -> list[Row]:
    """Documents and bytes by licence, the most frequent first."""
    totals: dict[str, Counter[str]] = {}
    for _, _, path in tables.task_files(decisions):
        part = tables.read_table(path, ["license", "decision", "bytes"])
        for row in part.group_by(["license", "decision"]).aggregate([("bytes", "sum"), ("bytes", "count")]).to_pylist():
            tally = totals.setdefault(row["license"], Counter())
            tally.update({"read": row["bytes_count"], row["decision"]: row["bytes_count"]})
    ordered = sorted(totals.items(), key=lambda item: (-item[1]["read"], item[0]))
    return [{"license": name, "read": tally["read"], "kept": tally["kept"]} for name, tally in ordered]


def _benchmarks(made: Artifact | None) -> dict[str, Any]:
    if made is None:
        return {}
    found: dict[str, Any] = json.loads((made.path / decontaminate.BENCHMARKS_FILE).read_text(encoding="utf-8"))
    return found


def _clusters(made: Mapping[str, Artifact]) -> list[Row]:
    """The largest clusters with excerpts of their first members."""
    path = made["dedup"].path / dedup.CLUSTERS_FILE
    largest = document_sample.largest_clusters(path, _CLUSTERS, _MEMBERS)
    place = {row["id"]: (row["source"], row["task"], row["row"]) for rows in largest for row in rows}
    texts = document_sample.excerpts((made.get("lines") or made["extract"]), place.values())
    return [
        {
            "size": rows[0]["cluster_size"],
            "kinds": [kind for kind in ("exact", "url", "near") if any(row[f"{kind}_cluster"] for row in rows)],
            "members": [{"id": row["id"], "text": texts[place[row["id"]]]} for row in rows],
        }
        for rows in largest
    ]
