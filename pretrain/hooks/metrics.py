"""The record of a run: a local JSON Lines file, and on request the same in W&B.

Contract: `metrics.jsonl` has one JSON object per line, flushed as it is written; `event` is one of

    start        step, total_steps, world_size, device, pid   at every start of the trainer
    train        one step: loss, learning rate, gradient norm, tokens, speed, token counts (see events.py)
    validation   bits_per_byte by source
    checkpoint   path of a committed checkpoint, why it was saved, how long training paused for it
    skipped_after_rollback   a step that a rollback leaves out
    rollback     where training went wrong and which steps it skips
    warning      something that the trainer worked around
    straggler    a rank whose own work takes longer than that of the others
    stall        what the watchdogs found when an earlier start stopped moving
    stop, end    how this process ended

A resume or a rollback cuts the lines of later steps, which will be written again, so steps are monotone. If the recipe
asks for it, W&B gets the same (wandb_mirror.py). Only rank 0 writes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from configs.schema import Recipe
from pretrain.hooks.wandb_mirror import WandbMirror, wandb_mode
from twofold.files import disk_errors

METRICS_FILE = "metrics.jsonl"
_BLOCK_BYTES = 1 << 20


class Monitor:
    """Writes events; does nothing on ranks other than the first."""

    def __init__(
        self, recipe: Recipe, out: Path, resumed_step: int, enabled: bool, lineage: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """`lineage`: the checkpoints of other runs that this one branched from."""
        self._path = out / METRICS_FILE
        self._file: TextIO | None = None
        self._wandb: WandbMirror | None = None
        self._step = resumed_step
        if enabled:
            with disk_errors(self._path):
                _cut_after(self._path, resumed_step)
                self._file = self._path.open("a", encoding="utf-8")
            if (mode := wandb_mode(recipe.monitor.wandb)) != "disabled":
                self._wandb = WandbMirror(recipe, self._path, mode, lineage)

    def event(self, event: str, step: int, **fields: Any) -> None:
        """Append one line; `step` is the number of finished steps."""
        if self._file is None:
            return
        self._step = step
        self._append(event, step, fields)
        self._append_warnings()

    def attach(self, files: Sequence[Path]) -> None:
        """Send pages to W&B."""
        if self._wandb is not None and files:
            self._wandb.attach(files)

    def rewind(self, step: int) -> None:
        """Cut the lines of steps after `step`, where training returned to."""
        if self._file is None:
            return
        self._file.close()
        with disk_errors(self._path):
            _cut_after(self._path, step)
            self._file = self._path.open("a", encoding="utf-8")
        self._step = step
        if self._wandb is not None:
            self._wandb.rewound()

    def sync(self) -> None:
        """Sync the lines to the disk, before a checkpoint of their step."""
        if self._file is not None:
            with disk_errors(self._path):
                os.fsync(self._file.fileno())

    def close(self, exit_code: int) -> None:
        if self._wandb is not None:
            self._wandb.finish(exit_code)
        if self._file is not None:
            self._append_warnings()
            self._file.close()

    def _append(self, event: str, step: int, fields: Mapping[str, Any]) -> None:
        assert self._file is not None
        line = {"event": event, "step": step, "time": round(time.time(), 3), **finite(fields)}
        with disk_errors(self._path):
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        if self._wandb is not None:
            self._wandb.line(line)

    def _append_warnings(self) -> None:
        for message in self._wandb.warnings() if self._wandb is not None else ():
            self._append("warning", self._step, {"message": message})


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """All complete lines of a metrics file, one at a time; one that a kill cut is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if event := as_event(line):
                yield event


def as_event(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None if it is cut."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _cut_after(path: Path, step: int) -> None:
    """Drop the lines of later steps; step 0 (nothing to resume) drops all of them.

    Only the end of the file is read and written. Lines that move to the front of it are first copied behind it: a kill
    at any moment leaves all of them, and the next start drops what is cut or there twice.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        begin = _end_of_steps(file, step) if step > 0 else 0
        file.seek(begin)
        end = file.read()
        kept = b"".join(dict.fromkeys(line for line in end.splitlines(keepends=True) if _is_upto(line, step)))
        if not end.startswith(kept):
            file.write((b"" if end.endswith(b"\n") else b"\n") + kept)
            _sync(file)
            file.seek(begin)
            file.write(kept)
            _sync(file)
        file.truncate(begin + len(kept))


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _end_of_steps(file: BinaryIO, step: int) -> int:
    """Where the last `train` line of step `step` or before ends; before it, no line is of a later step."""
    begin = file.seek(0, os.SEEK_END)
    rest = b""
    while begin > 0:
        size = min(begin, _BLOCK_BYTES)
        begin -= size
        file.seek(begin)
        # The first line may begin in the block before; it is looked at together with that one.
        first, *lines = (file.read(size) + rest).splitlines(keepends=True)
        end = begin + len(first) + sum(map(len, lines))
        for line in reversed(lines if begin else [first, *lines]):
            if _is_upto(line, step) and json.loads(line)["event"] == "train":
                return end
            end -= len(line)
        rest = first
    return 0


def _is_upto(line: bytes, step: int) -> bool:
    """Whether a line is complete and of step `step` or before; none is of step 0."""
    try:
        return step > 0 and line.endswith(b"\n") and bool(json.loads(line)["step"] <= step)
    except (ValueError, LookupError, TypeError):
        return False


def finite(value: Any) -> Any:
    """NaN and infinity become null, which is what JSON has."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
