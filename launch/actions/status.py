"""`twofold status`: show training progress from the files of the run folder.

Contract: reads only; works on any host that sees the run folder, while training runs and afterwards.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.recipe import load_recipe
from configs.units import format_bytes, format_count
from launch.progress import decimal
from pretrain import layout
from pretrain.data.plan import Plan
from pretrain.hooks.metrics import METRICS_FILE, read_events
from pretrain.hooks.watchdog import Beat, find_stragglers, read_beats
from twofold.errors import user_error

_RECENT = 50
"""Logged steps that speed is taken from."""
_FRESH_BEATS = 4
Event = dict[str, Any]


def status(folder: Path, console: Console) -> None:
    """Print the state of the training in a run folder (or in its `train` artifact)."""
    out = training_folder(folder)
    events = read_events(out / METRICS_FILE)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows(out, events, read_beats(out), time.time()):
        table.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(table)


def training_folder(folder: Path) -> Path:
    """Where the trainer of a run writes: the newest, finished or not."""
    if (folder / METRICS_FILE).exists():
        return folder
    found = sorted(folder.glob(f"artifacts/train-*/{METRICS_FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise user_error(
            str(folder), None, "holds no training", "name the run_dir of a recipe whose training has begun"
        )
    return found[-1].parent


def rows(out: Path, events: Sequence[Event], beats: Sequence[Beat], now: float) -> list[tuple[str, str]]:
    """Name and text of each line."""
    recipe = load_recipe(out / "recipe.yaml")
    plan = Plan(recipe)
    steps = _of(events, "train")
    found = [("run", f"{recipe.name}  {out}"), ("state", _state(out, events, beats, recipe.watch.beat_s, now))]
    if steps:
        last = steps[-1]
        share = last["tokens"] / plan.total_tokens
        found += [
            (
                "progress",
                f"step {last['step']:,} of {plan.total_steps:,}, phase {last['phase']}, "
                f"{format_count(last['tokens'])} of {format_count(plan.total_tokens)} tokens ({share:.1%})",
            ),
            ("loss", f"{decimal(last['loss'], 4)}, grad_norm {decimal(last['grad_norm'], 3)}, lr {last['lr']:.3g}"),
            ("speed", _speed(steps, plan.total_tokens - last["tokens"])),
        ]
    if validations := _of(events, "validation"):
        bits = validations[-1]["bits_per_byte"]
        found.append(("bits per byte", ", ".join(f"{name} {value:.3f}" for name, value in bits.items())))
    if checkpoints := _of(events, "checkpoint"):
        last, age = checkpoints[-1], now - checkpoints[-1]["time"]
        found.append(
            ("checkpoint", f"{last['path']} ({last['reason']}), {_duration(age)} ago, {_size(out / last['path'])}")
        )
    found.append(("incidents", _incidents(events, out)))
    if beats:
        found.append(("ranks", _ranks(beats, recipe.watch.straggler_factor, recipe.watch.beat_s, now)))
    return found


def _of(events: Sequence[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def _state(out: Path, events: Sequence[Event], beats: Sequence[Beat], beat_s: float, now: float) -> str:
    if (out / layout.SUMMARY_FILE).exists():
        return "finished"
    fresh = any(now - beat.time < _FRESH_BEATS * beat_s and beat.doing != "ended" for beat in beats)
    if fresh:
        return "stopping: asked to save and end" if (out / layout.STOP_FILE).exists() else "training"
    last = events[-1]["event"] if events else ""
    since = f", {_duration(now - events[-1]['time'])} ago" if events else ""
    return f"stopped and saved{since}" if last == "stop" else f"not running: no heartbeat; last word `{last}`{since}"


def _speed(steps: Sequence[Event], left: int) -> str:
    speed = statistics.median(step["tps"] for step in steps[-_RECENT:])
    utilisation = steps[-1]["mfu"]
    share = f", MFU {utilisation:.1%} (full attention counted)" if utilisation else ""
    return f"{format_count(round(speed))} tokens/s{share}; {_duration(left / speed)} to go"


def _incidents(events: Sequence[Event], out: Path) -> str:
    counts = {
        "skipped steps": sum(event["skipped"] for event in _of(events, "train")),
        "rollbacks": len(_of(events, "rollback")),
        "restarts": max(0, len(_of(events, "start")) - 1),
        "stalls": len(list((out / layout.STALLS_DIR).glob("*/verdict.json"))),
        "warnings": len(_of(events, "warning")),
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    verdicts = sorted((out / layout.STALLS_DIR).glob("*/verdict.json"), key=lambda path: path.stat().st_mtime)
    last = f"; last stall: {json.loads(verdicts[-1].read_text(encoding='utf-8'))['text']}" if verdicts else ""
    return (told or "none") + last


def _ranks(beats: Sequence[Beat], factor: float, beat_s: float, now: float) -> str:
    hosts = {beat.host for beat in beats}
    told = [f"{len(beats)} on {len(hosts)} hosts"]
    silent = [beat for beat in beats if now - beat.time > _FRESH_BEATS * beat_s and beat.doing != "ended"]
    if silent:
        told.append("silent: " + ", ".join(f"{beat.rank} on {beat.host}" for beat in silent[:8]))
    for one in find_stragglers(beats, factor)[:8]:
        ratio = one["seconds"] / one["median_seconds"] if one["median_seconds"] else float("inf")
        told.append(f"rank {one['rank']} on {one['host']} takes {ratio:.1f} times the median ({one['measure']})")
    return "; ".join(told)


def _size(folder: Path) -> str:
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return format_bytes(sum(files)) if files else "no longer kept"


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes / 60:.1f} h" if minutes < 2_880 else f"{minutes / 1_440:.1f} days"
