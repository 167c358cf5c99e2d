"""The heartbeat, the verdict on a training that hangs, and the watchdog of a real process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from configs.launch_schema import Watch as Settings
from pretrain.hooks.watchdog import Beat, Watch, find_stragglers, judge, read_beats, unreported_stalls
from pretrain.layout import BEATS_DIR, STALLS_DIR
from tests.pretrain.world import ROOT
from twofold.exit_codes import EXIT_CODE_STALLED

AT = Beat(0, "h0", 1, 1000.0, 50, 12, "gradients", 1.0, 0.01, 0.001)


def beats(**changes: float | str) -> list[Beat]:
    """Four ranks on two hosts; `changes` are those of rank 2."""
    ranks = [replace(AT, rank=rank, host=f"h{rank // 2}") for rank in range(4)]
    return [*ranks[:2], replace(ranks[2], **changes), ranks[3]]


def test_a_silent_rank_is_dead() -> None:
    found = judge(beats(time=900.0), 4, beat_s=10)
    assert [one["rank"] for one in found["dead"]] == [2]
    assert "no heartbeat from rank 2 on h1" in found["text"]


def test_the_rank_with_fewest_marks_is_the_one_that_all_wait_for() -> None:
    found = judge(beats(marks=47, doing="data"), 4, beat_s=10)
    assert (found["dead"], [one["rank"] for one in found["behind"]]) == ([], [2])
    assert found["text"] == "all ranks wait for rank 2 on h1 (at step 12, data)"


def test_a_rank_that_never_came_is_named_and_those_of_a_larger_start_are_not() -> None:
    assert "rank 3 never started" in judge(beats()[:3], 4, beat_s=10)["text"]
    assert "a link is cut" in judge(beats(), 3, beat_s=10)["text"]


def test_stragglers_are_those_far_above_the_median() -> None:
    (found,) = find_stragglers(beats(probe_s=0.02), 1.3)
    assert (found["rank"], found["measure"], found["median_seconds"]) == (2, "probe_s", 0.01)
    assert find_stragglers(beats(probe_s=0.0125), 1.3) == []
    assert find_stragglers(beats(data_wait_s=0.05), 1.3) == [], "milliseconds of waiting hold up nobody"
    assert [one["measure"] for one in find_stragglers(beats(data_wait_s=2.0), 1.3)] == ["data_wait_s"]
    assert find_stragglers(beats()[:1], 1.3) == []


def test_beats_tell_where_the_main_thread_is_and_vanish_when_all_is_done(tmp_path: Path) -> None:
    with Watch(Settings(beat_s=0.05), tmp_path, 0, 1) as watch:
        watch.at(7, "data")
        watch.measured(probe_s=0.5)
        deadline = time.monotonic() + 60  # a guard against hanging, not a bound
        while not (found := read_beats(tmp_path)) or found[0].probe_s is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert (found[0].step, found[0].doing, found[0].marks) == (7, "data", 1)
    assert read_beats(tmp_path)[0].doing == "ended"
    with Watch(Settings(beat_s=0.05), tmp_path, 0, 1) as watch:
        watch.outcome = "done"
    assert not (tmp_path / BEATS_DIR).exists()


@pytest.mark.parametrize("stuck", ["time.sleep(600)", "threading.Event().wait()"])
def test_a_process_that_no_longer_moves_shows_its_stacks_and_ends(tmp_path: Path, stuck: str) -> None:
    program = (
        "import sys, threading, time; from pathlib import Path; from configs.launch_schema import Watch as S\n"
        "from pretrain.hooks.watchdog import Watch\n"
        "def somewhere_deep():\n"
        f"    {stuck}\n"
        f"with Watch(S(stall_s=0.6, beat_s=0.1), Path({str(tmp_path)!r}), 0, 2) as watch:\n"
        "    watch.at(3, 'gradients')\n"
        "    somewhere_deep()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == EXIT_CODE_STALLED, ended.stderr
    assert "no progress in 0.6 s at step 3, gradients" in ended.stderr
    assert "somewhere_deep" in ended.stderr
    folder = tmp_path / STALLS_DIR / "step-00000003"
    assert "somewhere_deep" in (folder / "rank-00000.txt").read_text()
    assert json.loads((folder / "verdict.json").read_text())["never_started"] == [1]
    assert len(unreported_stalls(tmp_path)) == 1
    assert unreported_stalls(tmp_path) == []


def test_python_itself_stuck_is_ended_too(tmp_path: Path) -> None:
    """A C function that never gives the interpreter back: no Python thread can act."""
    program = (
        "import ctypes; from pathlib import Path; from configs.launch_schema import Watch as S\n"
        "from pretrain.hooks.watchdog import Watch; import time\n"
        f"with Watch(S(stall_s=0.4, beat_s=0.1), Path({str(tmp_path)!r}), 0, 1) as watch:\n"
        "    time.sleep(0.2)\n"
        "    ctypes.PyDLL(None).sleep(600)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode != 0
    assert "Timeout" in ended.stderr
