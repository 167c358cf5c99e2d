"""How the trainer's process ends when something outside it fails; without ranks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.recipe import dump_recipe
from pretrain import goodput
from pretrain.engine.distributed import Ranks
from tests.pretrain import world
from twofold.errors import UserError, user_error
from twofold.exit_codes import EXIT_CODE_STOPPED


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The trainer's module, failing at its start; signal handlers are put back."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from pretrain import train

    def fail(device: str) -> None:
        raise user_error("shards", 3, "are cut", "make them again")

    monkeypatch.setattr(train, "start_ranks", fail)
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)}
    yield train
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def _arguments(out: Path) -> list[str]:
    recipe = out / "recipe.yaml"
    recipe.write_text(dump_recipe(world.recipe()), encoding="utf-8")
    return ["--recipe", str(recipe), "--shards", "s", "--tokenizer", "t", "--out", str(out), "--local_rank=0"]


def test_a_user_error_leaves_its_problems_and_exit_code_2(train: Any, tmp_path: Path) -> None:
    assert train.main(_arguments(tmp_path)) == 2
    (problem,) = json.loads((tmp_path / "error.json").read_text())["problems"]
    assert problem == {"field": "shards", "value": 3, "problem": "are cut", "hint": "make them again"}


def test_an_error_file_that_cannot_be_written_hides_nothing(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise user_error("disk", None, "the disk is full", "free some space")

    monkeypatch.setattr(train.layout, "write_json", full)
    assert train.main(_arguments(tmp_path)) == 2
    assert "shards = 3: are cut. Hint: make them again." in capsys.readouterr().err


def test_checkpoints_that_only_the_metrics_know_are_missed(train: Any, tmp_path: Path) -> None:
    ranks = Ranks(0, 1, torch.device("cpu"))
    train._refuse_lost_checkpoints(tmp_path, ranks)
    (tmp_path / "metrics.jsonl").write_text(
        '{"event": "train", "step": 1}\n{"event": "checkpoint", "step": 1, "path": "checkpoints/step-00000001"}\n'
    )
    with pytest.raises(UserError, match=r"step-00000001: is not there, .* tells of 1 checkpoints\. Hint: .*--fresh"):
        train._refuse_lost_checkpoints(tmp_path, ranks)


def _begun(train: Any) -> Any:
    stop = train.StopSignals()
    stop.begin()
    return stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signals_are_remembered(train: Any, number: signal.Signals) -> None:
    stop = _begun(train)
    assert not stop.asked
    signal.raise_signal(number)
    assert stop.asked


def test_a_file_asks_to_stop_until_it_is_heard(train: Any, tmp_path: Path) -> None:
    stop = _begun(train)
    stop.watch(tmp_path)
    assert not stop.asked
    (tmp_path / "stop").touch()
    assert stop.asked
    stop.heard()
    assert not stop.asked


def test_training_stops_when_its_supervisor_is_gone(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.hooks.stop_signals._POLL_S", 1e-6)
    by_hand, supervised = _begun(train), _begun(train)
    by_hand.watch(tmp_path)
    with _another_holds(tmp_path / ".supervisor"):
        supervised.watch(tmp_path)
        assert not supervised.asked
    assert supervised.asked
    assert not by_hand.asked, "nobody supervised it when it started"


@contextlib.contextmanager
def _another_holds(path: Path) -> Iterator[None]:
    with path.open("w") as file:  # a lock belongs to the opened file, so this process counts as another one
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


STARTING = """
import ctypes, pathlib, sys
from pretrain.goodput import Ledger
from pretrain.hooks.stop_signals import StopSignals
assert "torch" not in sys.modules
stop, out = StopSignals(), pathlib.Path(sys.argv[1])
ledger = Ledger(out)
stop.watch(out, lambda: ledger.write("stopped"))
print("starting", flush=True)
ctypes.CDLL(None).poll(None, 0, 60_000)  # in C, as a rank that waits for others; a signal ends only one such call
ctypes.CDLL(None).poll(None, 0, 60_000)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, "stop"])
def test_a_rank_that_is_starting_ends_at_once(tmp_path: Path, how: signal.Signals | str) -> None:
    command = [sys.executable, "-c", STARTING, str(tmp_path)]
    with subprocess.Popen(command, cwd=world.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "starting\n"
        if isinstance(how, signal.Signals):
            process.send_signal(how)
        else:
            (tmp_path / how).touch()
        assert process.wait(timeout=30) == EXIT_CODE_STOPPED
    (start,) = goodput.read(tmp_path)
    assert start.outcome == "stopped", "a stop on request is no incident"


def test_a_second_trainer_is_refused_and_leaves_the_folder_alone(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _another_holds(tmp_path / ".trainer"):
        assert train.main(_arguments(tmp_path)) == 2
    assert "is in use by process" in capsys.readouterr().err
    assert not (tmp_path / "error.json").exists()


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from pretrain.engine.deepspeed_adapter import start_ranks

    with pytest.raises(UserError, match=r"--device = 'cuda': is not what DeepSpeed found \(cpu\).*DS_ACCELERATOR=cuda"):
        start_ranks("cuda")
