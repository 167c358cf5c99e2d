"""The record of a run: a local JSON Lines file, and the same to W&B. The only module that imports wandb.

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

A resume or a rollback cuts the lines of later steps, which will be written again, so steps are monotone. W&B gets
the numbers of `train` and `validation`, alerts, and the attached pages. It can never stop training: its first failure
is reported once and disables it. Only rank 0 writes.
"""

from __future__ import annotations

import json
import math
import netrc
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

from configs.schema import Recipe
from twofold.errors import user_error
from twofold.files import atomic_path, disk_errors

METRICS_FILE = "metrics.jsonl"
_WANDB_HOST = "api.wandb.ai"
_RUN_ID_FILE = "wandb-run-id"
_FINISH_TIMEOUT_S = 60.0
_ALERT_EVERY_S = 300
_BLOCK_BYTES = 1 << 20
ALERTS = ("rollback", "straggler", "stall", "stop", "end")
"""Events that W&B sends as alerts, in addition to skipped steps."""

Mode = Literal["online", "offline", "disabled"]
_MODES: dict[str, Mode] = {"online": "online", "offline": "offline", "disabled": "disabled", "off": "disabled"}


class Monitor:
    """Writes events; does nothing on ranks other than the first."""

    def __init__(self, recipe: Recipe, out: Path, resumed_step: int, enabled: bool) -> None:
        self._path = out / METRICS_FILE
        self._file: TextIO | None = None
        self._wandb: WandbRun | None = None
        self._step = resumed_step
        if enabled:
            with disk_errors(self._path):
                _cut_after(self._path, resumed_step)
                self._file = self._path.open("a", encoding="utf-8")
            self._wandb = WandbRun(recipe, out, self._warn)

    def event(self, event: str, step: int, **fields: Any) -> None:
        """Append one line; `step` is the number of finished steps."""
        if self._file is None:
            return
        self._step = step
        line = {"event": event, "step": step, "time": round(time.time(), 3), **finite(fields)}
        with disk_errors(self._path):
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        if self._wandb is None:
            return
        if event in ("train", "validation"):
            self._wandb.log(step, {f"{event}/{name}": value for name, value in _flat(fields)})
        if event in ALERTS or fields.get("skipped"):
            text = ", ".join(f"{name} {value}" for name, value in fields.items() if not isinstance(value, (dict, list)))
            self._wandb.alert("step skipped" if event == "train" else event, f"step {step}: {text}")

    def attach(self, files: Sequence[Path]) -> None:
        """Send pages to W&B, which keeps one version of equal contents."""
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

    def sync(self) -> None:
        """Sync the lines to the disk, before a checkpoint of their step."""
        if self._file is not None:
            with disk_errors(self._path):
                os.fsync(self._file.fileno())

    def close(self, exit_code: int) -> None:
        if self._wandb is not None:
            self._wandb.finish(exit_code)
        if self._file is not None:
            self._file.close()

    def _warn(self, message: str) -> None:
        self.event("warning", self._step, message=message)


class WandbRun:
    """One W&B run over all restarts; its first failure is reported and ends it."""

    def __init__(self, recipe: Recipe, out: Path, warn: Callable[[str], None]) -> None:
        self._run: Any = None
        self._warn, self._name = warn, recipe.name
        mode = wandb_mode(recipe.monitor.wandb)
        if mode != "disabled":
            self._guard(lambda: self._start(recipe, out, mode))

    def log(self, step: int, numbers: dict[str, float]) -> None:
        if self._run is not None:
            self._guard(lambda: self._run.log(numbers, step=step))

    def alert(self, title: str, text: str) -> None:
        if self._run is not None:
            self._guard(lambda: self._run.alert(title=title, text=text, wait_duration=_ALERT_EVERY_S))

    def attach(self, files: Sequence[Path]) -> None:
        if self._run is not None:
            self._guard(lambda: self._attach(files))

    def finish(self, exit_code: int) -> None:
        """End the run; an upload that does not end in time is abandoned (`wandb sync` completes it)."""
        if self._run is None:
            return
        run = self._run
        ending = threading.Thread(target=lambda: self._guard(lambda: run.finish(exit_code=exit_code)), daemon=True)
        ending.start()
        ending.join(_FINISH_TIMEOUT_S)
        if ending.is_alive():
            self._run = None
            self._warn(f"W&B did not end within {_FINISH_TIMEOUT_S:.0f} s and is abandoned")

    def _attach(self, files: Sequence[Path]) -> None:
        import wandb

        artifact = wandb.Artifact(f"{self._name}-pages", type="pages")
        for file in files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact)

    def _start(self, recipe: Recipe, out: Path, mode: Mode) -> None:
        import wandb  # takes a second, so only where W&B is on

        self._run = wandb.init(
            project=recipe.monitor.project,
            name=recipe.name,
            id=_run_id(out),
            resume="allow",
            dir=str(out),
            mode=mode,
            config=recipe.model_dump(mode="json"),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, init_timeout=60),
        )

    def _guard(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # whatever W&B does, training continues
            self._run = None
            self._warn(f"W&B failed and is now off: {type(error).__name__}: {error}")


def wandb_mode(wish: str) -> Mode:
    """The recipe's choice; `auto` takes WANDB_MODE, else `online` if a key is found and `offline` if not."""
    if wish == "auto":
        named = os.environ.get("WANDB_MODE", "")
        wish = named if named in _MODES else ("online" if _has_key() else "offline")
    return _MODES[wish]


def check_key() -> None:
    """Raise `UserError` if the W&B server does not accept the key, as asked by W&B's own client."""
    import wandb

    try:
        wandb.login(verify=True)
    except wandb.errors.Error as error:
        text = " ".join(str(error).split())
        if isinstance(error, (wandb.errors.AuthenticationError, wandb.errors.UsageError)):
            hint = "run `wandb login` with the key of your account, or set monitor.wandb=offline"
            raise user_error("W&B key", None, f"is refused: {text}", hint) from None
        hint = "check the network, or set monitor.wandb=offline and sync later"
        raise user_error("W&B", None, f"cannot be reached: {text}", hint) from None


def read_events(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a metrics file; one that a kill cut is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def _cut_after(path: Path, step: int) -> None:
    """Drop the lines of later steps; step 0 (nothing to resume) drops all of them.

    Only the end of the file is read and written. A kill halfway leaves lines that the next start cuts.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        if step > 0:
            begin = _end_of_steps(file, step)
            file.seek(begin)
            kept = [line for line in file.read().splitlines(keepends=True) if _is_upto(line, step)]
            file.seek(begin)
            file.writelines(kept)
        file.truncate()


def _end_of_steps(file: BinaryIO, step: int) -> int:
    """Where the last `train` line of step `step` or before begins; before it, no line is of a later step."""
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
            end -= len(line)
            if _is_upto(line, step) and json.loads(line)["event"] == "train":
                return end
        rest = first
    return 0


def _is_upto(line: bytes, step: int) -> bool:
    """Whether a line is complete and of step `step` or before."""
    try:
        return line.endswith(b"\n") and bool(json.loads(line)["step"] <= step)
    except ValueError:
        return False


def _run_id(out: Path) -> str:
    """W&B's id of this run, the same over restarts."""
    path = out / _RUN_ID_FILE
    if not path.exists():
        with atomic_path(path) as target:
            target.write_text(uuid.uuid4().hex[:16], encoding="ascii")
    return path.read_text(encoding="ascii")


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(_WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def finite(value: Any) -> Any:
    """NaN and infinity become null, which is what JSON has."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(fields: dict[str, Any]) -> list[tuple[str, float]]:
    """Numbers by slash-joined name; texts are left out."""
    flat: list[tuple[str, float]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            flat += [(f"{name}/{key}", item) for key, item in _flat(value)]
        elif isinstance(value, (int, float)):
            flat.append((name, value))
    return flat
