"""Training over two hosts by the deepspeed launcher: the real one, over ssh and a cable that can be cut."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.resume_trials import EXACT, NUMERIC
from pretrain.hooks.metrics import read_events
from tests.launch import two_hosts
from tests.launch.conftest import CLUSTER_PLAN, SMOKE, STALL_S
from tests.launch.two_hosts import TwoHosts

pytestmark = [pytest.mark.cluster, pytest.mark.e2e]
OVER_TWO = ("launch.cpu_ranks=1", "launch.environment={GLOO_SOCKET_IFNAME: eth0, OMP_NUM_THREADS: '1'}")
"""One rank a host; the order of float sums depends on the number of threads."""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    if missing := two_hosts.why_not():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("hosts")
    with two_hosts.two_hosts(folder) as both:
        yield both


@pytest.fixture
def run_dir(packed_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(packed_run, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def curve(run_dir: Path) -> list[list[Any]]:
    (metrics,) = run_dir.glob("artifacts/train-*/metrics.jsonl")
    return [[event[key] for key in (*EXACT, *NUMERIC)] for event in read_events(metrics) if event["event"] == "train"]


def start_event(run_dir: Path) -> dict[str, Any]:
    (metrics,) = run_dir.glob("artifacts/train-*/metrics.jsonl")
    return [event for event in read_events(metrics) if event["event"] == "start"][-1]


def wait_for_step(run_dir: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while not any(len(curve(path.parents[2])) >= step for path in run_dir.glob("artifacts/train-*/metrics.jsonl")):
        assert time.monotonic() < deadline, "training does not begin"
        time.sleep(0.1)


def test_launch_over_two_hosts_equals_two_ranks_on_one(hosts: TwoHosts, one_host: Path, run_dir: Path) -> None:
    out, err = (
        process := hosts.twofold(
            "launch", str(SMOKE), "--hostfile", str(hosts.hostfile), f"run_dir={run_dir}", *CLUSTER_PLAN, *OVER_TWO
        )
    ).communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert "deepspeed.launcher.runner --hostfile" in out
    assert "2 answer with the same code and versions" in out
    assert "slowest link" in out
    assert start_event(run_dir)["world_size"] == 2
    assert curve(run_dir) == curve(one_host)
    logs = sorted(path.name[-9:] for path in run_dir.glob("artifacts/train-*/logs/*.log"))
    assert logs == ["rank0.log", "rank1.log"]


def test_a_cut_link_ends_all_ranks_and_a_restart_equals_an_undisturbed_run(
    hosts: TwoHosts, one_host: Path, run_dir: Path
) -> None:
    over_two = (*OVER_TWO, f"launch.hostfile={hosts.hostfile}", "launch.nodes=2")
    told = [str(SMOKE), f"run_dir={run_dir}", *CLUSTER_PLAN, *over_two, "--until", "train"]
    process = hosts.twofold("run", *told)
    wait_for_step(run_dir, 20)
    hosts.link(up=False)
    cut = time.monotonic()
    try:
        while hosts.processes("pretrain.start"):
            assert time.monotonic() - cut < 10 * STALL_S, "ranks outlive the limit"
            time.sleep(0.2)
        out, err = process.communicate(timeout=90)
    finally:
        hosts.link(up=True)
    assert process.returncode == 1, out + err
    assert "training failed" in err
    assert not hosts.processes("deepspeed")
    (verdict,) = run_dir.glob("artifacts/train-*/stalls/*/verdict.json")
    assert "a link is cut" in json.loads(verdict.read_text())["text"]
    assert len(list(verdict.parent.glob("rank-*.txt"))) == 2
    again = hosts.twofold("run", *told)
    out, err = again.communicate(timeout=180)
    assert again.returncode == 0, out + err
    assert curve(run_dir) == curve(one_host)
    (metrics,) = run_dir.glob("artifacts/train-*/metrics.jsonl")
    assert any(event["event"] == "stall" for event in read_events(metrics))


def test_training_goes_on_without_a_lost_host(hosts: TwoHosts, one_host: Path, run_dir: Path) -> None:
    process = hosts.twofold(
        "run",
        str(SMOKE),
        f"run_dir={run_dir}",
        *CLUSTER_PLAN,
        *OVER_TWO,
        f"launch.hostfile={hosts.hostfile}",
        "launch.nodes=2",
        "launch.min_nodes=1",
        "launch.restarts=1",
        "--until",
        "train",
    )
    wait_for_step(run_dir, 20)
    hosts.link(up=False)
    try:
        out, err = process.communicate(timeout=240)
    finally:
        hosts.link(up=True)
    assert process.returncode == 0, out + err
    assert "restart 1 of 1, on 1 of 2 nodes" in out
    assert start_event(run_dir)["world_size"] == 1
    ours, theirs = curve(run_dir), curve(one_host)
    exact = len(EXACT)
    assert [row[:exact] for row in ours] == [row[:exact] for row in theirs]
    assert [row[exact] for row in ours] == pytest.approx([row[exact] for row in theirs], rel=2e-2)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("10.99.0.1 slots=1\n10.99.0.77 slots=1\n", "host 10.99.0.77: does not answer"),
        ("10.99.0.1 slots=1\n10.99.0.1 slots=1\n", "appears twice"),
    ],
)
def test_preflight_names_the_host(hosts: TwoHosts, run_dir: Path, tmp_path: Path, lines: str, says: str) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text(lines)
    told = ("preflight", str(SMOKE), "--hostfile", str(hostfile), f"run_dir={run_dir}")
    process = hosts.twofold(*told, *CLUSTER_PLAN, *OVER_TWO)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, out + err
    assert says in err
    assert "Traceback" not in out + err
