"""`twofold status`: show training progress from the files of the run folder.

Contract: reads only; works on any host that sees the run folder, while training runs and afterwards. Reads each line
of the metrics once and keeps the newest steps, so its memory does not depend on how long training has run.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.recipe import load_recipe
from configs.schema import Recipe
from configs.units import format_bytes, format_count
from launch.progress import format_seconds, median_speed, number
from pretrain import goodput, layout
from pretrain.data.plan import Plan
from pretrain.goodput import Start
from pretrain.hooks.metrics import METRICS_FILE, read_events
from pretrain.hooks.watchdog import Beat, find_stragglers, read_beats
from twofold.errors import user_error

_RECENT = 50
"""Logged steps that speed is taken from."""
_FRESH_BEATS = 4
_RECIPE_FILE = "recipe.yaml"
_BEGUN = (_RECIPE_FILE, METRICS_FILE)
"""What a start of training writes."""
Event = dict[str, Any]


def status(folder: Path, as_json: bool, console: Console) -> None:
    """Print the state of the training in a run folder (or in its `train` artifact)."""
    out = training_folder(folder)
    if as_json:
        found = numbers(out, read_events(out / METRICS_FILE), time.time())
        console.print(json.dumps(found, ensure_ascii=False, indent=2), markup=False, soft_wrap=True)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows(out, read_events(out / METRICS_FILE), time.time()):
        table.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(table)


def training_folder(folder: Path) -> Path:
    """Where the trainer of a run writes: the folder that was started or written last, finished or not."""
    if (folder / METRICS_FILE).exists():
        return folder
    begun = (path for name in _BEGUN for path in folder.glob(f"artifacts/train-*/{name}"))
    found = {path.parent for path in begun}
    if not found:
        raise user_error(
            str(folder), None, "holds no training", "name the run_dir of a recipe whose training has begun"
        )
    return max(found, key=_touched)


def _touched(out: Path) -> float:
    return max(path.stat().st_mtime for path in (out / name for name in _BEGUN) if path.exists())


@dataclass
class _Read:
    """What status needs of the events."""

    steps: deque[Event] = field(default_factory=lambda: deque(maxlen=_RECENT))
    newest: dict[str, Event] = field(default_factory=dict)
    """The last event of each kind."""
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, events: Iterable[Event]) -> _Read:
        found = cls()
        for event in events:
            kind = event["event"]
            found.newest[kind] = event
            found.counts[kind] += 1
            if kind == "train":
                found.steps.append(event)
                found.counts["skipped"] += event["skipped"]
        return found


def rows(out: Path, events: Iterable[Event], now: float) -> list[tuple[str, str]]:
    """Name and text of each line."""
    recipe = load_recipe(out / _RECIPE_FILE)
    found, beats, starts = _Read.of(events), read_beats(out), goodput.read(out)
    is_alive = _is_alive(recipe, beats, now)
    lines = [("run", f"{recipe.name}  {out}"), ("state", _state(out, starts, is_alive, now))]
    if found.steps:
        lines += _progress(Plan(recipe), found.steps, is_alive)
    if validation := found.newest.get("validation"):
        bits = validation["bits_per_byte"]
        lines.append(("bits per byte", ", ".join(f"{name} {number(value, '.3f')}" for name, value in bits.items())))
    if last := found.newest.get("checkpoint"):
        age, size = format_seconds(now - last["time"]), _size(out / last["path"])
        lines.append(("checkpoint", f"{last['path']} ({last['reason']}), {age} ago, {size}"))
    if starts:
        lines.append(("time", time_by_cause(_account(recipe, starts, now))))
    lines.append(("incidents", _incidents(found, starts, is_alive, out)))
    if beats:
        lines.append(("ranks", _ranks(beats, recipe.watch.straggler_factor, _alive_s(recipe), now)))
    return lines


def numbers(out: Path, events: Iterable[Event], now: float) -> dict[str, Any]:
    """The same for programs: newest events as they are in the metrics, where null is what was not finite."""
    recipe = load_recipe(out / _RECIPE_FILE)
    found, beats, starts = _Read.of(events), read_beats(out), goodput.read(out)
    is_alive = _is_alive(recipe, beats, now)
    return {
        "run": recipe.name,
        "folder": str(out),
        "state": _state(out, starts, is_alive, now),
        "total_steps": Plan(recipe).total_steps,
        **{kind: found.newest.get(kind) for kind in ("train", "validation", "checkpoint")},
        "seconds": {cause: ns / 1e9 for cause, ns in _account(recipe, starts, now).items()},
        "incidents": _counts(found, starts, is_alive, out),
    }


def _is_alive(recipe: Recipe, beats: Sequence[Beat], now: float) -> bool:
    return any(now - beat.time < _alive_s(recipe) and beat.doing != "ended" for beat in beats)


def _account(recipe: Recipe, starts: Sequence[Start], now: float) -> dict[str, int]:
    return goodput.account(starts, int(now * 1e9), int(_alive_s(recipe) * 1e9))


def time_by_cause(spent: dict[str, int]) -> str:
    """`2h 10m since the first launch: stepping 2h 03m (94.6%), …`: every cause that took time, the longest first."""
    total = sum(spent.values())
    largest = sorted(((ns, cause) for cause, ns in spent.items() if ns), reverse=True)
    parts = [f"{cause} {format_seconds(ns / 1e9)} ({ns / total:.1%})" for ns, cause in largest]
    return f"{format_seconds(total / 1e9)} since the first launch: " + ", ".join(parts)


def _alive_s(recipe: Recipe) -> float:
    """A heartbeat that is older belongs to a process that is dead or cut off."""
    return _FRESH_BEATS * recipe.watch.beat_s


def _state(out: Path, starts: Sequence[Start], is_alive: bool, now: float) -> str:
    if (out / layout.SUMMARY_FILE).exists():
        return "finished"
    if is_alive:
        return "stopping: asked to save and end" if (out / layout.STOP_FILE).exists() else "training"
    if not starts:
        return "not running"
    outcome, since = starts[-1].outcome, format_seconds(now - starts[-1].time / 1e9)
    if outcome == "stopped":
        return f"stopped on request, {since} ago"
    what = {"failed": "failed", "stalled": "ended by its watchdog"}.get(outcome, "not running: last heartbeat")
    return f"{what} {since} ago; the log is {out / 'train.log'}"


def _progress(plan: Plan, steps: Sequence[Event], is_alive: bool) -> list[tuple[str, str]]:
    last = steps[-1]
    speed, done = median_speed(steps), last["tokens"] / plan.total_tokens
    pace = f"{format_count(round(speed))} tokens/s" if speed else "not known"
    if last["mfu"]:
        pace += f", MFU {last['mfu']:.1%} (full attention counted)"
    if speed and is_alive:
        pace += f"; {format_seconds((plan.total_tokens - last['tokens']) / speed)} to go"
    norm, rate = number(last["grad_norm"], ".3f"), number(last["lr"], ".3g")
    return [
        (
            "progress",
            f"step {last['step']:,} of {plan.total_steps:,}, phase {last['phase']}, "
            f"{format_count(last['tokens'])} of {format_count(plan.total_tokens)} tokens ({done:.1%})",
        ),
        ("loss", f"{number(last['loss'], '.4f')}, grad_norm {norm}, lr {rate}"),
        ("speed", pace),
    ]


def _counts(found: _Read, starts: Sequence[Start], is_alive: bool, out: Path) -> dict[str, int]:
    """What went wrong; a stop on request is no incident."""
    ended = starts[:-1] if is_alive else starts
    return {
        "skipped steps": found.counts["skipped"],
        "rollbacks": found.counts["rollback"],
        "killed or crashed": sum(start.outcome == "" for start in ended),
        "failed": sum(start.outcome == "failed" for start in ended),
        "stalls": len(_verdicts(out)),
        "warnings": found.counts["warning"],
    }


def _incidents(found: _Read, starts: Sequence[Start], is_alive: bool, out: Path) -> str:
    counts, verdicts = _counts(found, starts, is_alive, out), _verdicts(out)
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    last = f"; last stall: {json.loads(verdicts[-1].read_text(encoding='utf-8'))['text']}" if verdicts else ""
    return (told or "none") + last


def _verdicts(out: Path) -> list[Path]:
    """Of the watchdogs, the newest last."""
    return sorted((out / layout.STALLS_DIR).glob("*/verdict.json"), key=lambda path: path.stat().st_mtime)


def _ranks(beats: Sequence[Beat], factor: float, alive_s: float, now: float) -> str:
    hosts = {beat.host for beat in beats}
    told = [f"{len(beats)} on {len(hosts)} hosts"]
    silent = [beat for beat in beats if now - beat.time > alive_s and beat.doing != "ended"]
    if silent:
        told.append("silent: " + ", ".join(f"{beat.rank} on {beat.host}" for beat in silent[:8]))
    for one in find_stragglers(beats, factor)[:8]:
        ratio = one["seconds"] / one["median_seconds"] if one["median_seconds"] else float("inf")
        told.append(f"rank {one['rank']} on {one['host']} takes {ratio:.1f} times the median ({one['measure']})")
    return "; ".join(told)


def _size(folder: Path) -> str:
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return format_bytes(sum(files)) if files else "no longer kept"
