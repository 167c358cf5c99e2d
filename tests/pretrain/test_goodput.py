"""Every nanosecond of a run has one cause, through kills, rollbacks, stalls and clocks that jump."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.launch_schema import Watch as Settings
from pretrain import goodput
from pretrain.goodput import CAUSES, WORK, Ledger, Start, account
from pretrain.hooks.watchdog import Watch, read_beats

MARKS = {
    "data": "waiting for data",
    "gradients": "stepping",
    "agreement": "stepping",
    "update": "stepping",
    "validation": "validating",
    "checkpoint": "saving checkpoints",
    "phase weights": "saving checkpoints",
    "rollback": "repeated work",
    "weights": "starting",
}
ALIVE = 40


class World:
    """A run on fake clocks, and what its time really went into."""

    def __init__(self, out: Path) -> None:
        self.out, self.now, self.wall_offset = out, 0, 10**18
        self.spans: list[tuple[str, int]] = []
        self.saved: dict[int, int] = {}
        """Step of a checkpoint -> how many spans there were when it was saved."""
        self.step, self.is_down, self.written = 0, True, 0
        self.ledger: Ledger | None = None

    @property
    def clocks(self) -> SimpleNamespace:
        return SimpleNamespace(time_ns=lambda: self.now + self.wall_offset, monotonic_ns=lambda: self.now)

    def spend(self, cause: str, ns: int) -> None:
        self.now += ns
        self.spans.append((cause, ns))

    def start(self, data: st.DataObject) -> Ledger:
        goodput.launched(self.out)
        self.spend("starting", data.draw(st.integers(0, 50)))
        self.ledger = Ledger(self.out)
        self.spend("starting", data.draw(st.integers(0, 50)))
        self.step = data.draw(st.sampled_from(sorted(self.saved))) if self.saved else 0
        self.saved.setdefault(0, len(self.spans))
        self.return_to(self.step)
        self.written = len(self.spans)
        self.ledger.write()
        return self.ledger

    def return_to(self, step: int) -> None:
        assert self.ledger is not None
        self.ledger.resumed(step)
        behind = self.saved[step]
        self.spans = self.spans[:behind] + [
            ("repeated work" if cause in WORK else cause, ns) for cause, ns in self.spans[behind:]
        ]
        self.saved = {saved: at for saved, at in self.saved.items() if saved <= step}
        self.step = step

    def train(self, data: st.DataObject, ledger: Ledger) -> None:
        for action in data.draw(st.lists(st.sampled_from(["mark", "mark", "save", "rollback", "write", "jump"]))):
            if action == "mark":
                mark = data.draw(st.sampled_from(sorted(MARKS)))
                ledger.mark(mark)
                self.spend(MARKS[mark], data.draw(st.integers(0, 50)))
                self.step += mark == "update"
            elif action == "save" and self.step not in self.saved:
                ledger.saved(self.step)
                self.saved[self.step] = len(self.spans)
            elif action == "rollback":
                self.return_to(data.draw(st.sampled_from(sorted(self.saved))))
            elif action == "jump":
                self.wall_offset += data.draw(st.integers(-100, 100))
            if action in ("write", "jump", "rollback"):
                ledger.write()
                self.written = len(self.spans)

    def end(self, data: st.DataObject, ledger: Ledger) -> str:
        outcome = data.draw(st.sampled_from(["killed", "stopped", "failed", "stalled"]))
        if outcome == "killed":
            self.spans = self.spans[: self.written] + [("down", ns) for _, ns in self.spans[self.written :]]
        else:
            if outcome == "stalled":
                ledger.mark("gradients")
                self.spend("stalled", 7)
            ledger.write(outcome)
        return outcome


@given(st.data())
def test_every_nanosecond_has_the_cause_that_it_had(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        world = World(Path(folder))
        patch.setattr(goodput, "time", world.clocks)
        for _ in range(data.draw(st.integers(1, 4))):
            ledger = world.start(data)
            world.train(data, ledger)
            world.end(data, ledger)
            world.spend("down", data.draw(st.integers(0, 100)) + ALIVE + 1)
        found = account(goodput.read(world.out), world.clocks.time_ns(), ALIVE)
        expected: Counter[str] = Counter()
        for cause, ns in world.spans:
            expected[cause] += ns
        assert found == dict.fromkeys(CAUSES, 0) | dict(expected)
        assert sum(found.values()) == world.now


def test_a_process_that_is_alive_still_does_what_it_did() -> None:
    start = Start(launched=100, time=200, spent=dict.fromkeys(CAUSES, 0) | {"stepping": 100}, doing="stepping")
    assert account([start], 230, ALIVE)["stepping"] == 130
    assert account([start], 300, ALIVE) == dict.fromkeys(CAUSES, 0) | {"stepping": 100, "down": 100}


def test_a_clock_that_goes_back_between_starts_takes_nothing_away() -> None:
    starts = [Start(launched=100, time=200, outcome="failed"), Start(launched=150, time=160, outcome="failed")]
    assert account(starts, 100, ALIVE) == dict.fromkeys(CAUSES, 0)


def test_time_after_a_training_that_is_done_is_not_counted() -> None:
    done = Start(launched=100, time=200, outcome="done")
    assert account([done], 900, ALIVE)["down"] == 0
    assert account([done, Start(launched=800, time=900, outcome="done")], 1000, ALIVE)["down"] == 0


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"launched": 1}', '{"laps": [], "spent": {}}'])
def test_a_damaged_file_hides_no_other(tmp_path: Path, damage: str) -> None:
    for _ in range(3):
        Ledger(tmp_path).write("failed")
    starts = goodput.read(tmp_path)
    (tmp_path / "times" / "start-000002.json").write_text(damage)
    assert goodput.read(tmp_path) == [starts[0], starts[2]]
    spent = account(goodput.read(tmp_path), starts[2].time, 0)
    assert sum(spent.values()) == pytest.approx(starts[2].time - starts[0].launched, abs=50e6)


def test_a_full_disk_disturbs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    ledger.write()
    goodput.launched(tmp_path)
    assert goodput.read(tmp_path) == []


def test_the_watch_fills_the_ledger_and_writes_it_with_every_beat(tmp_path: Path) -> None:
    with Watch(Settings(beat_s=0.02), tmp_path, 0, 1, Ledger(tmp_path)) as watch:
        watch.resumed(0)
        watch.at(1, "data")
        time.sleep(0.1)
        (start,) = goodput.read(tmp_path)
        assert start.outcome == ""
        assert start.doing == "waiting for data"
        (beat,) = read_beats(tmp_path)
        assert beat.data_wait_s is not None, "of the step that waits now"
        watch.at(1, "gradients")
        watch.saved(1)
        watch.outcome = "stopped"
    (start,) = goodput.read(tmp_path)
    assert start.outcome == "stopped"
    assert [lap.step for lap in start.laps] == [0, 1]
    assert start.spent["waiting for data"] > 0
    assert json.loads((tmp_path / "times" / "start-000001.json").read_text())["outcome"] == "stopped"
