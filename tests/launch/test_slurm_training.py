"""Training as a Slurm job: a real Slurm of two nodes, signals, requeues, lost nodes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pretrain.hooks.metrics import read_events
from pretrain.layout import STOP_FILE
from tests.launch import slurm_cluster
from tests.launch.conftest import CLUSTER_PLAN, SMOKE, twofold
from tests.launch.test_two_hosts import curve, run_dir, wait_for_step

__all__ = ["run_dir"]
pytestmark = [pytest.mark.cluster, pytest.mark.slurm, pytest.mark.e2e]
JOB = (
    "launch.slurm={partition: data, time: '0:10:00', save_lead_s: 60}",
    "launch.nodes=2",
    "launch.cpu_ranks=1",
    "launch.environment={OMP_NUM_THREADS: '1'}",
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if missing := slurm_cluster.why_not():
        pytest.skip(missing)
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm")):
        yield


def submit(run_dir: Path, *more: str) -> str:
    """Launch; the number of the training job."""
    code, out, err = twofold("launch", str(SMOKE), "--slurm", f"run_dir={run_dir}", *CLUSTER_PLAN, *JOB, *more)
    assert code == 0, out + err
    return out.split("job ")[-1].split()[0]


def state(job: str) -> str:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False).stdout
    return shown.split("JobState=")[1].split()[0] if "JobState=" in shown else "GONE"


def wait(good: Callable[[], bool], run_dir: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not good():
        logs = "\n".join(path.read_text() for path in run_dir.glob("slurm/*.log"))
        assert time.monotonic() < deadline, logs
        assert "Hint:" not in logs, logs
        time.sleep(0.3)


def restarted(job: str) -> bool:
    """Slurm holds a job back for two minutes after a requeue; an administrator need not wait.

    But for some seconds: a node that has just ended the job refuses it as revoked, and the job is gone.
    """
    if state(job) == "PENDING":
        time.sleep(5)
        subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], check=False, capture_output=True)
    return state(job) == "RUNNING"


def finished(run_dir: Path) -> bool:
    return (run_dir / "train").is_symlink() and (run_dir / "report").is_symlink()


def starts(run_dir: Path) -> int:
    (metrics,) = run_dir.glob("artifacts/train-*/metrics.jsonl")
    return sum(event["event"] == "start" for event in read_events(metrics))


@contextmanager
def paused(run_dir: Path) -> Iterator[None]:
    """Rank 0 stands still, and all wait for it."""
    (beat,) = run_dir.glob("artifacts/train-*/beats/rank-00000.json")
    pid = json.loads(beat.read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def log(run_dir: Path) -> str:
    return "".join(path.read_text() for path in run_dir.glob("slurm/train-*.log"))


def test_a_time_limit_and_a_requeue_and_the_curve_is_that_of_an_undisturbed_run(
    slurm: None, one_host: Path, run_dir: Path
) -> None:
    job = submit(run_dir, "--no-preflight", "watch.stall_s=200")
    wait_for_step(run_dir, 12)
    with paused(run_dir):  # Slurm looks at limits twice a minute, and all of this training takes no longer
        # A minute is left from the start, which is save_lead_s: time for the warning.
        subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=1"], check=True)
        wait(lambda: any(run_dir.glob(f"artifacts/train-*/{STOP_FILE}")), run_dir)
    wait(lambda: "resumes from" in log(run_dir), run_dir)
    subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=10"], check=True)
    wait(lambda: restarted(job), run_dir)
    wait(lambda: finished(run_dir), run_dir)
    assert curve(run_dir) == curve(one_host)
    assert starts(run_dir) == 2


def test_a_lost_node_requeues_and_scancel_saves(slurm: None, one_host: Path, run_dir: Path) -> None:
    job = submit(run_dir, "--no-preflight")
    wait_for_step(run_dir, 12)
    subprocess.run(["scontrol", "update", "nodename=n2", "state=down", "reason=test"], check=True)
    wait(lambda: state(job) in ("PENDING", "CONFIGURING"), run_dir)
    subprocess.run(["scontrol", "update", "nodename=n2", "state=idle"], check=False)
    seen = len(curve(run_dir))
    wait(lambda: restarted(job), run_dir)
    wait(lambda: len(curve(run_dir)) > seen, run_dir)
    subprocess.run(["scancel", job], check=True)
    wait(lambda: state(job) in ("CANCELLED", "GONE"), run_dir)
    code, out, err = twofold(
        "run", str(SMOKE), f"run_dir={run_dir}", *CLUSTER_PLAN, "--until", "train", "launch.cpu_ranks=2"
    )
    assert code == 0, out + err
    assert curve(run_dir) == curve(one_host)


def test_the_script_is_readable_and_a_refusal_is_told(slurm: None, run_dir: Path) -> None:
    code, _, err = twofold("launch", str(SMOKE), "--slurm", "--dry-run", f"run_dir={run_dir}", *CLUSTER_PLAN, *JOB)
    assert code == 0, err
    script = (run_dir / "slurm" / "train.sbatch").read_text()
    for line in ("#SBATCH --signal=B:USR1@60", "#SBATCH --requeue", "#SBATCH --nodes=2", "#SBATCH --time=0:10:00"):
        assert line in script
    subprocess.run(["bash", "-n", str(run_dir / "slurm" / "train.sbatch")], check=True)
    code, _, err = twofold(
        "launch", str(SMOKE), "--slurm", f"run_dir={run_dir}", *CLUSTER_PLAN, *JOB, "launch.slurm.partition=nowhere"
    )
    assert code == 2
    assert "refused by sbatch" in err
    assert "nowhere" in err or "partition" in err


def test_data_and_training_as_two_jobs(slurm: None, tmp_path: Path, packed_run: Path) -> None:
    """The data job's stages run as array jobs; training waits for them."""
    shards = next(packed_run.glob("artifacts/shards-*"))
    fresh = tmp_path / "run"
    shutil.copytree(packed_run, fresh, symlinks=True)
    shutil.rmtree(fresh / "artifacts" / shards.name)
    job = submit(
        fresh,
        "data.executor.kind=slurm",
        "data.executor.poll_s=0.5",
        "data.executor.slurm={partition: data, memory_per_cpu_gb: 1}",
        "phases.general.tokens=12K",
        "phases.domain.tokens=12K",
    )
    wait(lambda: finished(fresh), fresh)
    assert state(job) in ("COMPLETING", "COMPLETED", "GONE", "RUNNING")
    assert len(list(fresh.glob("slurm/data-*.log"))) == 1
    said = log(fresh)  # of the preflight that the training job begins with
    assert "2 answer with the same code and versions" in said
    assert "slowest link" in said


def test_an_expired_allocation_is_told(slurm: None, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "999999")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    code, out, err = twofold("preflight", str(SMOKE), f"run_dir={run_dir}", *CLUSTER_PLAN, *JOB, "launch.launcher=srun")
    assert code == 2, out + err
    assert "its allocation has expired" in err
