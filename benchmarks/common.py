"""What every benchmark shares: timing, the corpus, the JSON that it writes.

Contract: `report` prints a table and, with `--json OUT`, writes `ours`, `peers`, `ratio` (above 1: we
are ahead), `machine` and `date`. Timings are medians over repetitions in one process, ours and the
peer's taken in turn, so that a noisy machine is noisy for both.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_pipeline.readers import streams
from twofold.files import write_json

CONSOLE = Console(highlight=False)
_MAX_LINE_BYTES = 32_000_000


def parser(name: str, summary: str) -> argparse.ArgumentParser:
    """`--corpus DIR`, `--json OUT` and `--repetitions N`; benchmarks add their own."""
    options = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=summary)
    options.add_argument("--corpus", type=Path, default=Path("../shared/corpus"), help="folder of raw documents")
    options.add_argument("--json", type=Path, metavar="OUT", help="write the result here")
    options.add_argument("--repetitions", type=int, default=5, help="timings of each contestant (median is reported)")
    return options


def interleaved(
    contestants: Mapping[str, Callable[[], Any]], repetitions: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each contestant, run in turn, after one unmeasured call of each."""
    for run in contestants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repetitions):
        for name, run in contestants.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def let_datatrove_hash() -> None:
    """Its xxHash functions pass text to xxhash, which since version 4 takes bytes only; fixed here, at full speed."""
    import datatrove.utils.hashes.xxhash as theirs
    import xxhash

    def xxhash64(data: str | bytes) -> int:
        return int(xxhash.xxh64_intdigest(data.encode() if isinstance(data, str) else data))

    theirs.xxhash64 = xxhash64


def records(folder: Path, limit_bytes: int = 2**62) -> Iterator[dict[str, Any]]:
    """Records of the JSON Lines files below `folder`, in file order, until their text reaches the limit."""
    read = 0
    for path in sorted(folder.rglob("*.jsonl*")):
        for line in streams.lines(path, _MAX_LINE_BYTES):
            if not isinstance(line, bytes) or not line.strip():
                continue
            record = json.loads(line)
            read += len((record.get("text") or record.get("html") or "").encode())
            if read > limit_bytes:
                return
            yield record


def report(name: str, result: Mapping[str, Any], target: Path | None) -> None:
    """Show `result` (with `ours`, `peers`, `ratio`) and write it with the machine and the date."""
    assert {"ours", "peers", "ratio"} <= result.keys(), "a benchmark compares"
    whole = {"benchmark": name, **result, "machine": machine(), "date": datetime.date.today().isoformat()}
    table = Table("figure", "value", title=name)
    for key, value in _flat(whole):
        table.add_row(key, f"{value:,.4g}" if isinstance(value, float) else str(value))
    CONSOLE.print(table)
    if target:
        write_json(target, whole)


def machine() -> dict[str, Any]:
    """Processor, cores, memory and Python, without the host's name."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((int(line.split()[1]) // 1024**2 for line in _lines("/proc/meminfo") if "MemTotal" in line), 0)
    return {
        "processor": model or platform.machine(), "cores": len(os.sched_getaffinity(0)), "memory_gib": memory,
        "python": platform.python_version(), "load_1min": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
