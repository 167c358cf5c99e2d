"""Coverage-guided fuzzing of every reader: `python tests/data_pipeline/fuzz_readers.py SECONDS [FOLDER]`.

Needs atheris (`pip install atheris`; wheels for Linux and Python 3.11). Starts from one small valid
file of each format; an input's first byte chooses the reader, the second its settings. What raises,
hangs for 30 s or passes 2 GB stays in FOLDER (a temporary one, if none is named) as `crash-…`.
`seeds` and `check` also serve the property tests in test_fuzz.py.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import tempfile
from pathlib import Path

FORMS = ("html", "jsonl", "parquet", "text", "warc")
MAX_BYTES = 20_000
KOREAN = "가을 하늘은 높고 푸르다. 아이들은 운동장에서 공을 차며 논다."


def seeds() -> list[tuple[str, bytes]]:
    """(format, bytes) of small valid files."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    page = f"<html><head><meta charset=utf-8></head><body><p>{KOREAN}</p><pre>x = 1</pre></body></html>".encode()
    record = json.dumps({"id": "a", "text": KOREAN, "url": "https://x.org/", "licence": "MIT"}, ensure_ascii=False)
    lines = f'{record}\n{{"html": "<p>x</p>"}}\n'.encode()
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://x.org/\r\nContent-Type: application/http\r\n"
    warc = f"{head}Content-Length: {len(http)}\r\n\r\n".encode() + http + b"\r\n\r\n"
    version = b"1 0 T\nURL IP-address Archive-date Content-type Archive-length\n"
    arc = b"filedesc://t 0.0.0.0 2014 text/plain %d\n%s\nhttp://x.org/ 0.0.0.0 2014 text/html %d\n%s\n" % (
        len(version),
        version,
        len(http),
        http,
    )
    table = pa.table({"id": ["a", "b"], "text": [KOREAN, None], "html": [None, "<p>x</p>"], "license": ["MIT", "X"]})
    parquet = io.BytesIO()
    pq.write_table(table, parquet, row_group_size=1, compression="zstd")
    compressed = zstandard.ZstdCompressor().compress(lines)
    return [
        ("html", page),
        ("html", page.decode().encode("cp949", "ignore")),
        ("text", KOREAN.encode("utf-16")),
        ("jsonl", lines),
        ("jsonl", gzip.compress(lines)),
        ("jsonl", compressed),
        ("parquet", parquet.getvalue()),
        ("warc", warc * 2),
        ("warc", gzip.compress(warc) * 2),
        ("warc", arc),
        ("warc", gzip.compress(arc)),
    ]


def check(path: Path, form: str, data: bytes, variant: int = 0) -> None:
    """Read `data` as a file of `form`: nothing raises, and every result is a sound document or a reject."""
    from data_pipeline.readers import formats

    path.write_bytes(data)
    settings = formats.Settings(
        MAX_BYTES,
        code=bool(variant & 1),
        unicode="NFKC" if variant & 2 else "NFC",
        extractor="trafilatura" if variant & 4 else "combined",
    )
    last = -1
    for found in formats.read(path, form, settings):
        assert found.index >= last, "out of order"
        last = found.index
        if isinstance(found, formats.Reject):
            assert found.reason in formats.REASONS
            assert len(found.detail) < 1_000
        else:
            assert found.text.strip()
            assert len(found.text.encode()) <= MAX_BYTES


def main(seconds: int, folder: Path) -> None:
    """Fuzz for `seconds`; libFuzzer prints its executions and ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["data_pipeline.readers"]):
        from data_pipeline.readers import formats  # noqa: F401

    path = folder / "input"
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, (form, data) in enumerate(seeds()):
        (corpus / f"seed-{number:02d}").write_bytes(bytes((FORMS.index(form), 0)) + data)

    def one(data: bytes) -> None:
        if len(data) >= 2:
            check(path, FORMS[data[0] % len(FORMS)], data[2:], data[1])

    options = ["-timeout=30", "-rss_limit_mb=2048", "-max_len=4096", f"-artifact_prefix={folder}/", "-seed=7"]
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    main(int(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="fuzz-readers-")))
