"""Slurm and Ray do what processes of this machine do: the real ones, where they are installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from configs.data_schema import Executor
from launch.executors import task_runner
from launch.executors.slurm import Queued, SlurmRunner, _note, job_name
from tests.conftest import ROOT
from tests.launch import slurm_cluster
from tests.launch.conftest import SMOKE, artifact_hashes, twofold
from tests.launch.test_executors import AloneIn, Append, Slow, die
from twofold.errors import UserError

QUIET = Console(quiet=True)
TASKS = 7


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    if missing := slurm_cluster.why_not():
        pytest.skip(missing)
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm")):
        yield settings(kind="slurm")


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    """A cluster of its own, started in another folder than the checkout."""
    pytest.importorskip("ray", reason="Ray is optional: pip install 'twofold-pretrain[ray]'")
    port = slurm_cluster.free_ports(1)[0]
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--num-cpus=2",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    folder = tmp_path_factory.mktemp("ray")
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        _eventually(lambda: b"Ray runtime started" in (folder / "log").read_bytes())
        yield settings(kind="ray", ray_address=f"127.0.0.1:{port}", ray_memory_gb=0.5)
        head.terminate()
        head.wait(30)


@pytest.fixture(params=[pytest.param("slurm", marks=pytest.mark.slurm), pytest.param("ray", marks=pytest.mark.ray)])
def cluster(request: pytest.FixtureRequest) -> Executor:
    found: Executor = request.getfixturevalue(request.param)
    return found


def settings(**more: Any) -> Executor:
    slurm = {"partition": "data", "memory_per_cpu_gb": 1, "time": "0:10:00"}
    return Executor.model_validate({"workers": 2, "poll_s": 0.2, "slurm": slurm, **more})


def overrides(chosen: Executor) -> list[str]:
    return [
        f"data.executor.kind={chosen.kind}",
        "data.executor.workers=2",
        "data.executor.poll_s=0.2",
        "data.executor.slurm={partition: data, memory_per_cpu_gb: 1}",
        f"data.executor.ray_address={chosen.ray_address}",
        "data.executor.ray_memory_gb=0.5",
    ]


def test_each_task_runs_once_and_a_failure_reaches_the_caller(cluster: Executor, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with task_runner(cluster, QUIET) as runner:
        with pytest.raises(UserError, match=r"source = '2': is broken\. Hint: fix it"):
            runner.run("append", Append(out, fails_at=2), TASKS, tmp_path / "log")
        for _ in range(2):  # the second call finds every completion mark
            runner.run("append", Append(out), TASKS, tmp_path / "log")
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        f"{rank}.txt": f"{rank}/{TASKS}\n" for rank in range(TASKS)
    }


def test_the_data_stages_give_the_same_bytes_as_on_one_machine(
    cluster: Executor, packed_run: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    code, _, err = twofold("run", str(SMOKE), f"run_dir={run_dir}", *overrides(cluster), "--until", "write")
    assert code == 0, err
    here, there = artifact_hashes(run_dir), artifact_hashes(packed_run)
    assert here == {file: there[file] for file in here}
    assert {file.split("/")[0] for file in there} - {file.split("/")[0] for file in here} == {"tokenizer", "shards"}


def test_a_killed_worker_is_told_and_not_waited_for(
    cluster: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.executors.slurm._LATE_MARKS_S", 1)
    with (
        task_runner(cluster, QUIET) as runner,
        pytest.raises(UserError, match=r"doomed: lost \d of 2 tasks.*Hint: see"),
    ):
        runner.run("doomed", die, 2, tmp_path / "log")


@pytest.mark.ray
def test_ray_runs_no_more_tasks_at_once_than_asked_for(ray: Executor, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with task_runner(ray.model_copy(update={"workers": 1}), QUIET) as runner:
        runner.run("append", AloneIn(out), 4, tmp_path / "log")
    assert len(list(out.iterdir())) == 4


@pytest.mark.ray
def test_a_task_that_no_node_can_hold_is_refused(ray: Executor) -> None:
    large = ray.model_copy(update={"ray_memory_gb": 1e6})
    with pytest.raises(UserError, match="more than any node"), task_runner(large, QUIET):
        pass


@pytest.mark.slurm
def test_more_jobs_than_the_clusters_arrays_hold(
    slurm: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.executors.slurm._longest_array", lambda: 2)
    out = tmp_path / "out"
    out.mkdir()
    with task_runner(slurm, QUIET) as runner:
        runner.run("append", Append(out), 5, tmp_path / "log")
    arrays = {path.name.split("_")[0] for path in (tmp_path / "log" / "slurm_logs").iterdir()}
    assert len(arrays) == 2
    assert sorted(path.read_text() for path in out.iterdir()) == [f"{rank}/5\n" for rank in range(5)]


@pytest.mark.slurm
def test_a_killed_run_leaves_jobs_that_the_next_one_clears(slurm: Executor, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()
    script = (
        "import sys; from pathlib import Path; from tests.launch import test_cluster_executors as t\n"
        "with t.task_runner(t.settings(kind='slurm'), t.QUIET) as runner:\n"
        "    runner.run('slow', t.Slow(Path(sys.argv[1]), 300), 2, Path(sys.argv[2]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, "-c", script, str(out), str(log)], env=environment)
    _eventually(lambda: len(list(out.glob("*.txt"))) == 2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert _queued(log) == 2, "Slurm goes on"
    with task_runner(slurm, QUIET) as runner:
        runner.run("slow", Slow(out, 0), 2, log)
    assert _queued(log) == 0
    assert {path.read_text() for path in out.iterdir()} == {"began\nbegan\nended\n"}, "the first ones never ended"


@pytest.mark.slurm
def test_a_lost_task_is_told_and_only_it_is_made_again(
    slurm: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.executors.slurm._LATE_MARKS_S", 1)
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()

    def cancel(queue: object) -> str:
        """In the place where the progress bar's note is made: the run is watching."""
        if len(list(out.glob("*.txt"))) == 2:
            subprocess.run(["scancel", "--name", job_name(log)], check=True)
        return ""

    monkeypatch.setattr("launch.executors.slurm._note", cancel)
    with task_runner(slurm, QUIET) as runner:
        with pytest.raises(UserError, match=r"slow: lost 2 of 2 tasks, the first of them 0\. Hint: see"):
            runner.run("slow", Slow(out, 300), 2, log)
        monkeypatch.undo()
        runner.run("slow", Slow(out, 0), 2, log)
    assert all(path.read_text().endswith("ended\n") for path in out.iterdir())


@pytest.mark.slurm
def test_a_refused_job_is_told_in_slurms_words(slurm: Executor, tmp_path: Path) -> None:
    wrong = settings(kind="slurm", slurm={"partition": "nowhere"})
    with task_runner(wrong, QUIET) as runner, pytest.raises(UserError, match=r"refused by sbatch.*invalid partition"):
        runner.run("append", Append(tmp_path), 2, tmp_path / "log")


def test_slurm_without_its_commands_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with (
        pytest.raises(UserError, match=r"needs sbatch, squeue, scancel, scontrol on this machine"),
        task_runner(settings(kind="slurm"), QUIET),
    ):
        pass


def test_ray_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UserError, match=r"needs the package ray.*Hint: pip install"),
        task_runner(settings(kind="ray"), QUIET),
    ):
        pass


@pytest.mark.ray
def test_no_ray_cluster_is_told() -> None:
    pytest.importorskip("ray", reason="Ray is optional")
    absent = settings(kind="ray", ray_address="127.0.0.1:1")
    with pytest.raises(UserError, match=r"is not a running Ray cluster"), task_runner(absent, QUIET):
        pass


def test_a_silent_controller_is_not_taken_for_an_empty_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words in (
        ("squeue", "Unable to contact slurm controller"),
        ("scancel", "no"),
        ("sbatch", ""),
        ("scontrol", ""),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("launch.executors.slurm._LONGEST_SILENCE_S", 0.3)
    with task_runner(settings(kind="slurm"), QUIET) as runner:
        assert isinstance(runner, SlurmRunner)
        with pytest.raises(UserError, match="cannot be cancelled"):
            runner._cancel([Queued("7_1", "RUNNING", "None")])


def test_why_jobs_wait_is_shown() -> None:
    queue = [Queued("7_1", "RUNNING", "None"), Queued("7_2", "PENDING", "Nodes required are DOWN")]
    assert _note(queue) == "1 pending, 1 running (Nodes required are DOWN)"


def _queued(log_dir: Path) -> int:
    found = subprocess.run(
        ["squeue", "--noheader", "--array", "--name", job_name(log_dir)], capture_output=True, text=True, check=True
    )
    return len(found.stdout.splitlines())


def _eventually(good) -> None:  # type: ignore[no-untyped-def]
    for _ in range(300):
        if good():
            return
        time.sleep(0.1)
    raise AssertionError("never came true")
