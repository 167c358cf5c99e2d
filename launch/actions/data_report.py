"""`twofold data-report`: the data on one page, with thresholds that the reader can move.

Contract: one self-contained file without network access and with one script, whose hash the page's content policy
names. All text of documents is escaped, in the mark-up and in the script's data. Whenever a threshold moves, the
page evaluates the decision table (data_pipeline/decisions/rules.py) again over a sample of the documents
(launch/reports/document_sample.py); figures for all documents are those of the filter stage. `#ko.words.min=60`
after the address moves a threshold, so a view can be shared. Reads the decisions' columns and a few hundred texts.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from configs.features import FEATURES
from configs.schema import Recipe
from configs.units import format_bytes
from data_pipeline import tables
from data_pipeline.decisions import rules
from data_pipeline.features import pii
from data_pipeline.stages import decontaminate, dedup, score
from launch import reports
from launch.reports import document_sample
from launch.runner import existing
from twofold import VERSION
from twofold.artifacts import Artifact
from twofold.errors import user_error

SCORES = ("language_score", "quality_score", "toxicity_score")
SCRIPTS = ("decisions.js", "data_report.js")
_SIDES = {"<": "min", ">": "max"}
_EACH_SIDE = 2
_CLUSTERS, _MEMBERS = 8, 3
Row = dict[str, Any]


def write(recipe: Recipe, out: Path | None, size: int) -> Path:
    """Write the page, with a sample of about `size` documents; return its path."""
    if size < 1:
        raise user_error("--sample", size, "must be positive", "give a number of documents")
    made = existing(recipe)
    if "filter" not in made:
        raise user_error("RECIPE", recipe.name, "has no decisions yet", "run `twofold run RECIPE --until filter`")
    return reports.write(out or Path(recipe.run_dir) / "data_report.html", render(recipe, made, size))


def render(recipe: Recipe, made: Mapping[str, Artifact], size: int) -> str:
    """The page as HTML."""
    filtered = made["filter"]
    decisions, counts = filtered.path / "decisions", filtered.counts
    sampled = document_sample.sample(decisions, counts["read"], size)
    script = "".join((reports.TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return reports.render(
        "data_report.html",
        recipe=recipe,
        version=VERSION,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        counts=counts,
        kept_size=format_bytes(counts["kept_bytes"]),
        sampled=sampled.num_rows,
        languages=_languages(counts),
        rejects=dict(reports.summed(made["extract"].counts, "rejects").most_common()),
        accounts={name: found["account"] for name, found in made["extract"].counts["sources"].items()},
        personal=_personal(counts),
        kinds=pii.TYPES,
        policy=recipe.data.personal_information,
        licenses=_licenses(decisions),
        lines=made["score"].counts.get("lines"),
        benchmarks=_benchmarks(made.get("decontaminate")),
        duplicates=made["dedup"].counts,
        clusters=_clusters(made),
        data=Markup(as_script_data(script_data(recipe, made, sampled))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def as_script_data(value: Any) -> str:
    """JSON that is safe within a script element: `<`, `>`, `&` and JavaScript's line separators are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def script_data(recipe: Recipe, made: Mapping[str, Artifact], sampled: pa.Table) -> Row:
    """Everything that the script reads: the decision table, the sample's columns, documents near the thresholds."""
    table = rules.decision_table(recipe)
    bounded = {check["column"] for check in table["checks"] if check["bound"] is not None}
    features = [name for name in FEATURES if name in SCORES or name in bounded]
    table["checks"] = [check for check in table["checks"] if check["language"] is None or check["column"] in features]
    languages = sorted(set(sampled["language"].to_pylist()))
    columns = {
        "source": _codes(sampled["source"], list(recipe.sources)),
        "language": _codes(sampled["language"], languages),
        **table_columns(table, sampled),
    }
    return {
        "table": table,
        "columns": columns,
        "pairs": _pairs(made["dedup"], sampled),
        "features": features,
        "meanings": {name: FEATURES[name].description for name in features},
        "scores": SCORES,
        "languages": languages,
        "near": _near(made, sampled, table["checks"]),
    }


def table_columns(table: Mapping[str, Any], sampled: pa.Table) -> dict[str, list[Any]]:
    """The columns that the decision table reads; `sampled` is sorted by id, so an id becomes its row's number."""
    found = sampled["reasons"].to_pylist()
    columns: dict[str, list[Any]] = {"bytes": sampled["bytes"].to_pylist(), "id": list(range(sampled.num_rows))}
    for check in table["checks"]:
        if check["language"] is None:  # a policy, which the stage has evaluated
            columns[check["column"]] = [int(check["reason"] in reasons) for reasons in found]
        elif check["column"] not in columns:
            columns[check["column"]] = [_short(value) for value in sampled[check["column"]].to_pylist()]
    duplicates = table["duplicates"]
    for name in ("cluster", *(link["column"] for link in duplicates["equal"])):
        columns[name] = _codes(sampled[name], [])
    return columns


def _pairs(made: Artifact, sampled: pa.Table) -> list[tuple[int, int]]:
    """Rows of the sample that are near duplicates; clusters are sampled whole."""
    documents = sampled["document"].combine_chunks()
    rows = {document: row for row, document in enumerate(documents.to_pylist())}
    found = []
    for _, _, path in tables.task_files(made.path / dedup.PAIRS_FOLDER):
        pairs = tables.read_table(path, ["first", "second"])
        found += pairs.filter(pc.is_in(pairs["first"], documents)).to_pylist()
    return [(rows[pair["first"]], rows[pair["second"]]) for pair in found]


def _codes(column: pa.ChunkedArray, names: Sequence[str]) -> list[int | None]:
    """Each value's place in `names`, to which new values are added; None for null."""
    numbers = {name: number for number, name in enumerate(names)}
    return [None if name is None else numbers.setdefault(name, len(numbers)) for name in column.to_pylist()]


def _short(value: float) -> float | int:
    """Whole numbers without `.0`; others exactly, so that the page decides as the stage does."""
    return int(value) if value == int(value) else value


def _near(made: Mapping[str, Artifact], sampled: pa.Table, checks: Sequence[rules.Check]) -> dict[str, list[Row]]:
    """`ko.words.min` -> documents of the sample near that threshold."""
    rows_of = {
        f"{check['language']}.{check['column']}.{_SIDES[check['operator']]}": document_sample.nearest(
            sampled, check["language"], check["column"], check["bound"], _EACH_SIDE
        )
        for check in checks
        if check["language"] is not None and check["bound"] is not None
    }
    rows = sorted({row for chosen in rows_of.values() for row in chosen})
    places = dict(zip(rows, document_sample.places(sampled, rows), strict=True))
    texts = document_sample.excerpts(_documents(made), places.values())

    def shown(row: int, feature: str) -> Row:
        values = {"id": sampled["id"], "value": sampled[feature], "decision": sampled["decision"]}
        return {**{name: column[row].as_py() for name, column in values.items()}, "text": texts[places[row]]}

    return {name: [shown(row, name.split(".")[1]) for row in chosen] for name, chosen in rows_of.items()}


def _documents(made: Mapping[str, Artifact]) -> Artifact:
    """The texts that were scored."""
    return score.documents(made["extract"], made["score"])


# --- figures for all documents, from counts ----------------------------------------------------


def _languages(counts: Mapping[str, Any]) -> dict[str, Counter[str]]:
    totals: dict[str, Counter[str]] = {}
    for source in counts["sources"].values():
        for language, tally in source["languages"].items():
            totals.setdefault(language, Counter()).update(tally)
    return dict(sorted(totals.items()))


def _personal(counts: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
    return {
        name: source["personal_information"]
        for name, source in counts["sources"].items()
        if source["personal_information"]
    }


def _licenses(decisions: Path) -> list[Row]:
    """Documents by license, the most frequent first."""
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
    largest = document_sample.largest_clusters(made["filter"].path / "decisions", _CLUSTERS, _MEMBERS)
    place = {row["id"]: (row["source"], row["task"], row["row"]) for rows in largest for row in rows}
    texts = document_sample.excerpts(_documents(made), place.values())
    return [
        {
            "size": rows[0]["cluster_size"],
            "members": [{"id": row["id"], "text": texts[place[row["id"]]]} for row in rows],
        }
        for rows in largest
    ]
