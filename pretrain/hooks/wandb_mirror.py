"""Mirrors metrics.jsonl to Weights & Biases; the only module that imports wandb.

Contract: W&B holds what the metrics file holds, on an axis of our own (`step`), after any sequence of stops and
rollbacks. An online run is resumed by its id, and steps that are trained again are logged again at the same step.
Where W&B cannot resume (offline) or would keep showing lines that were cut (after a rollback), another W&B run of the
same group begins with the lines that the file still has; older offline runs are removed, since the new one holds all
of theirs.

W&B gets numbers, alerts, the recipe without `launch.environment`, the lineage of a branch and the attached pages: no
text of a document or a sample. Everything happens in a thread of its own, so neither a slow nor a lost connection
holds up training. If W&B cannot be reached at the start, the run is recorded offline; any other failure turns it off.
"""

from __future__ import annotations

import json
import netrc
import os
import queue
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from configs.schema import Recipe
from twofold.errors import user_error
from twofold.files import atomic_path

RUN_ID_FILE = "wandb-run-id"
"""Holds the id of the online run that the next start resumes; absent while the run is recorded offline."""
ALERTS = ("rollback", "straggler", "stall", "stop", "end")
"""Events that W&B sends as alerts, in addition to skipped steps."""
_HOST = "api.wandb.ai"
_FINISH_TIMEOUT_S = 60.0
_ALERT_EVERY_S = 300
_NOT_METRICS = ("event", "step", "time")
Mode = Literal["online", "offline", "disabled"]
_MODES: dict[str, Mode] = {"online": "online", "offline": "offline", "disabled": "disabled", "off": "disabled"}


class WandbMirror:
    """Sends the lines of one metrics file; all methods return at once, but for `finish`."""

    def __init__(self, recipe: Recipe, metrics_file: Path, mode: Mode, lineage: Sequence[Mapping[str, Any]]) -> None:
        self._recipe, self._file, self._mode, self._lineage = recipe, metrics_file, mode, lineage
        self._out = metrics_file.parent
        self._run: Any = None
        self._is_off = False
        self._actions: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._warnings: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._actions.put(partial(self._begin, self._file_size(), may_resume=True))

    def line(self, line: Mapping[str, Any]) -> None:
        """Send a line that was just appended to the file."""
        self._actions.put(partial(self._log, line))
        if line["event"] in ALERTS or line.get("skipped"):
            self._actions.put(partial(self._alert, line))

    def rewound(self) -> None:
        """Begin a W&B run without the lines that were just cut from the file's end."""
        self._actions.put(partial(self._begin, self._file_size(), may_resume=False))

    def attach(self, files: Sequence[Path]) -> None:
        """Send pages as an artifact, of which W&B keeps one version of equal contents."""
        self._actions.put(partial(self._attach, files))

    def warnings(self) -> list[str]:
        """What went wrong since the last call, for the metrics file."""
        return [self._warnings.get() for _ in range(self._warnings.qsize())]

    def finish(self, exit_code: int) -> None:
        """End the run; an upload that does not end in time is abandoned (`wandb sync` completes it)."""
        self._actions.put(lambda: self._run.finish(exit_code=exit_code))
        self._actions.put(None)
        self._thread.join(_FINISH_TIMEOUT_S)
        if self._thread.is_alive():
            self._warnings.put(f"W&B did not end within {_FINISH_TIMEOUT_S:.0f} s and is abandoned")

    def _work(self) -> None:
        for action in iter(self._actions.get, None):
            if self._is_off:
                continue
            try:
                action()
            except Exception as error:  # whatever W&B does, training continues
                self._is_off = True
                self._warnings.put(f"W&B failed and is now off: {type(error).__name__}: {error}")

    def _begin(self, size: int, may_resume: bool) -> None:
        """Open a W&B run that holds the first `size` bytes of the metrics file."""
        if self._run is not None:
            self._run.tags = (*(self._run.tags or ()), "rolled-back")
            self._run.finish(exit_code=0)
        known = self._known_id() if may_resume and self._mode == "online" else None
        try:
            self._init(known or uuid.uuid4().hex[:16])
        except Exception as error:
            if self._mode == "offline":
                raise
            self._mode, known = "offline", None
            self._warnings.put(f"W&B is recorded offline: {type(error).__name__}: {error}")
            self._init(uuid.uuid4().hex[:16])
        if known is None:
            for line in _lines(self._file, size):
                self._log(line)
        self._remember()

    def _init(self, run_id: str) -> None:
        import wandb  # takes a second, so only where W&B is on

        config = self._recipe.model_dump(mode="json", exclude={"launch": {"environment"}})
        self._run = wandb.init(
            project=self._recipe.monitor.project,
            name=self._recipe.name,
            group=self._recipe.name,
            id=run_id,
            resume="allow" if self._mode == "online" else None,
            dir=str(self._out),
            mode=self._mode,
            config={**config, "lineage": list(self._lineage)},
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, init_timeout=60),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _remember(self) -> None:
        """Keep the id of an online run for the next start, and no older offline run."""
        file = self._out / RUN_ID_FILE
        if self._mode == "online":
            with atomic_path(file) as target:
                target.write_text(self._run.id, encoding="ascii")
            return
        file.unlink(missing_ok=True)
        for folder in (self._out / "wandb").glob("offline-run-*"):
            if not folder.name.endswith(f"-{self._run.id}"):
                shutil.rmtree(folder, ignore_errors=True)

    def _known_id(self) -> str | None:
        file = self._out / RUN_ID_FILE
        return file.read_text(encoding="ascii") if file.exists() else None

    def _file_size(self) -> int:
        return self._file.stat().st_size

    def _log(self, line: Mapping[str, Any]) -> None:
        if line["event"] in ("train", "validation"):
            fields = {name: value for name, value in line.items() if name not in _NOT_METRICS}
            self._run.log({"step": line["step"], **numbers(fields, line["event"])})

    def _alert(self, line: Mapping[str, Any]) -> None:
        title = "step skipped" if line["event"] == "train" else line["event"]
        fields = {name: value for name, value in line.items() if name not in _NOT_METRICS}
        text = ", ".join(f"{name} {value}" for name, value in fields.items() if not isinstance(value, (dict, list)))
        self._run.alert(title=title, text=f"step {line['step']}: {text}", wait_duration=_ALERT_EVERY_S)

    def _attach(self, files: Sequence[Path]) -> None:
        import wandb

        artifact = wandb.Artifact(f"{self._recipe.name}-pages", type="pages")
        for file in files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact)


def numbers(fields: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Finite numbers by slash-joined name; texts, lists and null are left out."""
    found: dict[str, float] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}/{name}")
        elif isinstance(value, (int, float)):
            found[f"{prefix}/{name}"] = value
    return found


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


def _lines(path: Path, size: int) -> Iterator[dict[str, Any]]:
    """The complete lines among the first `size` bytes."""
    with path.open("rb") as file:
        for line in file:
            size -= len(line)
            if size < 0:
                return
            yield json.loads(line)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False
