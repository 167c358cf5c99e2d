"""The page of `twofold compare-tokenizers`, drawn only from the figures that `--json` writes.

Contract: one self-contained file without scripts; all text and names are escaped; the same bytes for the same
figures. Takes under a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from configs.units import format_bytes
from launch import reports
from launch.reports import plots
from twofold import VERSION

LANGUAGES = {"ko": "Korean", "en": "English", "code": "Code"}
_SHOWN_CANDIDATES = 60


def write(found: Mapping[str, Any], target: Path) -> None:
    """Write the page."""
    reports.write(target, render(found))


def render(found: Mapping[str, Any]) -> str:
    """The page."""
    own = found["tokenizers"][found["recipe"]]
    languages = {code: LANGUAGES.get(code, code) for code in _ordered(own["compression"])}
    return reports.render(
        "tokenizers.html",
        found=found,
        own=own,
        version=VERSION,
        size=format_bytes(found["text"]["bytes"]),
        languages=languages,
        cards=cards(found, languages),
        tables={name: compression_rows(found, code) for code, name in languages.items()},
        domains={name: domain_rows(found, code) for code, name in languages.items()},
        curves={name: Markup(_curve(found, code)) for code, name in languages.items()},
        korean=korean_rows(found),
        kinds=list(own["vocabulary"]),
        usage_shown=_SHOWN_CANDIDATES,
    )


def cards(found: Mapping[str, Any], languages: Mapping[str, str]) -> list[tuple[str, str]]:
    """(figure, label): tokens per word in each language, compared with the best other tokenizer."""
    made = []
    for code, name in languages.items():
        rows = compression_rows(found, code)
        own = next(row for row in rows if row["own"])
        others = [row for row in rows if not row["own"]]
        label = f"{name}: tokens per word"
        if others:
            change = own["tokens_per_word"] / others[0]["tokens_per_word"] - 1
            word = "fewer" if change < 0 else "more"
            label += f", {abs(change):.1%} {word} than {others[0]['name']}, the best other"
        made.append((f"{own['tokens_per_word']:.3f}", label))
    made.append((f"{found['tokenizers'][found['recipe']]['vocab_size']:,}", "ids in the vocabulary"))
    if found["usage"]:
        made.append((f"{found['usage']['unused']:,}", "tokens unused in the training text"))
    return made


def compression_rows(found: Mapping[str, Any], language: str) -> list[dict[str, Any]]:
    """Figures of each tokenizer, the fewest tokens per word first; `bar` is relative to the most."""
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "own": name == found["recipe"],
            "vocab_size": row["vocab_size"],
            **row["compression"][language]["all"],
        }
        for name, row in found["tokenizers"].items()
    ]
    most = max(row["tokens_per_word"] for row in rows) or 1.0
    base = next(row["tokens_per_word"] for row in rows if row["own"]) or 1.0
    for row in rows:
        row["bar"] = row["tokens_per_word"] / most
        row["change"] = row["tokens_per_word"] / base - 1
    return sorted(rows, key=lambda row: (row["tokens_per_word"], row["name"]))


def domain_rows(found: Mapping[str, Any], language: str) -> list[dict[str, Any]]:
    """Tokens per word by domain and tokenizer."""
    rows = []
    for domain, figures in found["tokenizers"][found["recipe"]]["compression"][language].items():
        if domain != "all":
            values = {
                name: row["compression"][language][domain]["tokens_per_word"]
                for name, row in found["tokenizers"].items()
            }
            rows.append({"domain": domain, "bytes": format_bytes(figures["bytes"]), "values": values})
    return rows


def korean_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the tokenizers split Hangul."""
    return [
        {
            "name": name,
            "own": name == found["recipe"],
            **{key: row[key] for key in ("morphemes", "syllables", "nfd_penalty", "partial_character_tokens")},
            "partial_share": row["compression"].get("ko", {}).get("all", {}).get("partial_character_share"),
        }
        for name, row in found["tokenizers"].items()
    ]


def _curve(found: Mapping[str, Any], language: str) -> str:
    """Our tokenizer with fewer merges as a line, the other tokenizers as points."""
    own = found["curve"][language]
    series = {f"{found['recipe']}, fewer merges": (own["vocab_size"], own["tokens_per_word"])}
    for name, row in found["tokenizers"].items():
        if name != found["recipe"]:
            series[name] = ([row["vocab_size"]], [row["compression"][language]["all"]["tokens_per_word"]])
    return plots.lines(series, "vocabulary", "tokens per word", height=2.9)


def _ordered(languages: Mapping[str, Any]) -> list[str]:
    """Korean, English, code, then others by name."""
    return sorted(languages, key=lambda code: (list(LANGUAGES).index(code) if code in LANGUAGES else 9, code))
