"""`--text`: texts of a file or a folder, with their language and domain.

Contract: JSON Lines (also compressed) and Parquet give a text a record, of field `text`; any other file is one text.
The language is the record's `language` or `lang`, else `code` by the file's ending, else Korean where a fifth of
the letters are Hangul, else English. The domain is the record's, else the name of the file's folder. Files in
order of their path. A file that cannot be read, or holds no text, is a `UserError` that names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.readers import streams
from tokenizer.evaluation.compression import LabelledText
from twofold.errors import UserError, user_error

_CODE = {".py", ".c", ".h", ".cpp", ".js", ".ts", ".java", ".go", ".rs", ".sh", ".sql", ".rb", ".kt", ".swift"}
_LONGEST_LINE = 64_000_000
_KOREAN_SHARE = 0.2


def read_texts(path: Path) -> Iterator[LabelledText]:
    """Every text of a file or a folder."""
    if not path.exists():
        raise user_error("--text", str(path), "does not exist", "give a file or a folder of texts")
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    if not files:
        raise user_error("--text", str(path), "holds no file", "give a file or a folder of texts")
    for file in files:
        for record in _records(file):
            text = record.get("text")
            if not isinstance(text, str):
                raise _damaged(file, "has a record without `text`")
            given = record.get("language") or record.get("lang")
            yield LabelledText(str(given or _guess(file, text)), str(record.get("domain") or file.parent.name), text)


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    if ".jsonl" in file.suffixes:
        yield from _json_lines(file)
    elif file.suffix == ".parquet":
        try:
            for batch in pq.ParquetFile(file).iter_batches(1_000):
                yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise _damaged(file, f"cannot be read ({error})") from None
    else:
        try:
            yield {"text": file.read_text(encoding="utf-8")}
        except UnicodeDecodeError as error:
            raise _damaged(file, f"is not UTF-8 at byte {error.start}") from None


def _json_lines(file: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(streams.lines(file, _LONGEST_LINE), start=1):
        try:
            record = json.loads(line) if isinstance(line, bytes) else None
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise _damaged(file, f"has no JSON object in line {number}")
        yield record


def _guess(file: Path, text: str) -> str:
    if file.suffix in _CODE:
        return "code"
    letters = sum(map(str.isalpha, text))
    hangul = sum("가" <= letter <= "힣" for letter in text)
    return "ko" if hangul > _KOREAN_SHARE * letters else "en"


def _damaged(file: Path, problem: str) -> UserError:
    return user_error(str(file), None, problem, "fix it, or leave it out of --text")
