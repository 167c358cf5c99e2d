"""W&B holds what metrics.jsonl holds, gets no text, and can fail in any way without stopping anything."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import world
from wandb.proto.wandb_internal_pb2 import Record

from pretrain.hooks import wandb_mirror
from pretrain.hooks.metrics import Monitor, read_events
from pretrain.hooks.wandb_mirror import RUN_ID_FILE, numbers, wandb_mode

SECRET = "text of a document"
LINEAGE = ({"run": "runs/first", "step": 4},)


def _monitor(out: Path, resumed: int = 0, wish: str = "offline") -> Monitor:
    recipe = world.recipe(monitor__wandb=wish, launch__environment={"TOKEN": "hunter2"})
    return Monitor(recipe, out, resumed, enabled=True, lineage=LINEAGE)


def _train(monitor: Monitor, steps: range, attempt: int = 0) -> None:
    for step in steps:
        loss = float("nan") if step == 5 else 9.0 - step + attempt
        monitor.event("train", step, loss=loss, phase="general", tokens_by_source={"news": 64 * step})
        if step % 3 == 0:
            monitor.event("validation", step, bits_per_byte={"news": 2.0 / step}, samples=[SECRET])


def _expected(out: Path) -> list[dict[str, Any]]:
    return [
        {
            "step": line["step"],
            **numbers({k: v for k, v in line.items() if k not in ("event", "step", "time")}, line["event"]),
        }
        for line in read_events(out / "metrics.jsonl")
        if line["event"] in ("train", "validation")
    ]


class _Run:
    """A W&B run that remembers what it is given, and fails when told to."""

    def __init__(self, options: dict[str, Any], failing: str) -> None:
        self.options, self.id, self.failing = options, options["id"], failing
        self.logged: list[dict[str, Any]] = []
        self.alerts: list[str] = []
        self.exit_codes: list[int] = []
        self.tags: tuple[str, ...] | None = None

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        pass

    def log(self, row: dict[str, Any]) -> None:
        if self.failing == "log":
            raise ConnectionError("no route")
        self.logged.append(row)

    def alert(self, title: str, text: str, wait_duration: int) -> None:
        self.alerts.append(f"{title}: {text}")

    def finish(self, exit_code: int) -> None:
        if self.failing == "finish":
            raise TimeoutError("too slow")
        self.exit_codes.append(exit_code)


def _fake_wandb(monkeypatch: pytest.MonkeyPatch, failing: str = "") -> list[_Run]:
    runs: list[_Run] = []

    def init(**options: Any) -> _Run:
        if failing == "init" or failing == options["mode"]:
            raise wandb.errors.CommError("refused")
        runs.append(_Run(options, failing))
        return runs[-1]

    monkeypatch.setattr(wandb, "init", init)
    for name in ("WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "x")
    return runs


def test_w_and_b_is_off_unless_the_recipe_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = _fake_wandb(monkeypatch)
    tree = world.recipe().model_dump(mode="json")
    assert type(world.recipe().monitor).model_validate(tree["monitor"] | {"wandb": "off"}).wandb == "off"
    assert type(world.recipe().monitor)().wandb == "off"
    monitor = _monitor(tmp_path, wish="off")
    monitor.event("train", 1, loss=1.0)
    monitor.close(0)
    assert runs == []


def test_an_online_run_is_resumed_and_repeated_steps_are_logged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _fake_wandb(monkeypatch)
    monitor = _monitor(tmp_path, wish="auto")
    _train(monitor, range(1, 5))
    monitor.close(75)
    monitor = _monitor(tmp_path, 3, wish="auto")
    _train(monitor, range(4, 7), attempt=1)
    monitor.close(0)
    first, second = runs
    assert (first.exit_codes, second.exit_codes) == ([75], [0])
    assert (first.id, second.options["resume"], second.options["dir"]) == (second.id, "allow", str(tmp_path))
    newest = {(row["step"], frozenset(row)): row for row in [*first.logged, *second.logged]}
    assert list(newest.values()) == _expected(tmp_path)


def test_a_rollback_begins_another_online_run_without_the_cut_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _fake_wandb(monkeypatch)
    monitor = _monitor(tmp_path, wish="auto")
    _train(monitor, range(1, 6))
    monitor.rewind(3)
    monitor.event("rollback", 3, at_step=5)
    _train(monitor, range(6, 8))
    monitor.close(0)
    old, new = runs
    assert old.tags == ("rolled-back",)
    assert old.options["group"] == new.options["group"]
    assert new.logged == _expected(tmp_path)
    assert new.alerts == ["rollback: step 3: at_step 5"]
    assert (tmp_path / RUN_ID_FILE).read_text() == new.id


def test_a_run_that_cannot_go_online_is_recorded_offline_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / RUN_ID_FILE).write_text("known")
    runs = _fake_wandb(monkeypatch, failing="online")
    monitor = _monitor(tmp_path, wish="auto")
    _train(monitor, range(1, 4))
    monitor.close(0)
    (run,) = runs
    assert run.options["mode"] == "offline"
    assert run.id != "known", "an offline run of the same id would replace the online one when it is uploaded"
    assert not (tmp_path / RUN_ID_FILE).exists()
    assert run.logged == _expected(tmp_path)
    (warning,) = [event for event in read_events(tmp_path / "metrics.jsonl") if event["event"] == "warning"]
    assert warning["message"] == "W&B is recorded offline: CommError: refused"


def test_what_w_and_b_gets_is_numbers_and_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = _fake_wandb(monkeypatch)
    monitor = _monitor(tmp_path)
    _train(monitor, range(1, 4))
    monitor.close(0)
    (run,) = runs
    assert {"step": 3, "validation/bits_per_byte/news": 2.0 / 3} in run.logged
    assert run.options["config"]["lineage"] == list(LINEAGE)
    assert run.options["config"]["model"]["d_model"] == 32
    for secret in (SECRET, "hunter2"):
        assert secret not in json.dumps([run.options["config"], run.logged, run.alerts])


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_a_wandb_failure_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    _fake_wandb(monkeypatch, failing)
    monitor = _monitor(tmp_path)
    for step in (1, 2, 3):
        monitor.event("train", step, loss=1.0)
    monitor.close(0)
    events = list(read_events(tmp_path / "metrics.jsonl"))
    assert [event["step"] for event in events if event["event"] == "train"] == [1, 2, 3]
    (warning,) = [event for event in events if event["event"] == "warning"]
    assert "W&B failed and is now off" in warning["message"]


def test_a_connection_that_hangs_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(wandb, "init", lambda **_: gate.wait(60))
    monkeypatch.setattr(wandb_mirror, "_FINISH_TIMEOUT_S", 0.05)
    monitor = _monitor(tmp_path)
    _train(monitor, range(1, 4))
    monitor.close(0)
    gate.set()
    *steps, warning = read_events(tmp_path / "metrics.jsonl")
    assert len(steps) == 4
    assert "did not end" in warning["message"]


def test_the_real_client_offline_holds_what_the_file_holds_after_stops_kills_and_rollbacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    out, page = tmp_path / "out", tmp_path / "plan.html"
    out.mkdir()
    page.write_text("<html>the plan</html>")
    monitor = _monitor(out, wish="auto")
    monitor.attach([page])
    _train(monitor, range(1, 8))
    monitor.close(75)
    monitor = _monitor(out, 6, wish="auto")  # step 7 is lost
    _train(monitor, range(7, 10), attempt=1)
    monitor.rewind(6)
    _train(monitor, range(9, 13), attempt=2)
    monitor.event("end", 12)
    monitor.close(0)
    (record,) = out.glob("wandb/offline-run-*/*.wandb")
    records = list(_records(record))
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [{key: value for key, value in row.items() if key[0] != "_"} for row in rows] == _expected(out)
    axes = [record.metric for record in records if record.HasField("metric")]
    assert [(axis.name, axis.glob_name, axis.step_metric) for axis in axes] == [("step", "", ""), ("", "*", "step")]
    assert records[-1].exit.exit_code == 0
    assert SECRET.encode() not in record.read_bytes()
    assert not [event for event in read_events(out / "metrics.jsonl") if event["event"] == "warning"]


def _records(path: Path) -> Iterator[Record]:
    """The messages of a W&B file: a 7-byte header, then LevelDB's log format in blocks of 32 KiB."""
    raw, position, message = path.read_bytes(), 7, b""
    while position + 7 <= len(raw):
        left = 32_768 - position % 32_768
        if left < 7:
            position += left
            continue
        size, kind = int.from_bytes(raw[position + 4 : position + 6], "little"), raw[position + 6]
        message += raw[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(message)
            message = b""


def test_w_and_bs_folder_may_vanish(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    _train(monitor, range(1, 3))
    shutil.rmtree(tmp_path / "wandb", ignore_errors=True)
    _train(monitor, range(3, 5))
    monitor.close(0)
    assert [event["step"] for event in read_events(tmp_path / "metrics.jsonl") if event["event"] == "train"] == [
        1,
        2,
        3,
        4,
    ]


def test_online_only_where_a_key_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode("auto") == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode("auto") == "online"
    assert wandb_mode("offline") == "offline"
    assert wandb_mode("off") == "disabled"
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"
