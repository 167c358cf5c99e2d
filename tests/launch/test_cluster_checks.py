"""What hosts say, and what is made of it: each problem names the host and the hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.recipe import load_recipe
from configs.schema import Recipe
from launch.cluster import checks, probe
from launch.cluster.hosts import Answer

VERSIONS = dict.fromkeys(probe.PACKAGES, "1.0")
HERE = checks.Here("3.12.3", VERSIONS, "c0de")
GPU = {"name": "H100", "memory_mib": "81559", "memory_used_mib": "4", "ecc_errors": "0", "hw_slowdown": "Not Active"}


def _recipe(*overrides: str) -> Recipe:
    return load_recipe("configs/exaone3_7p8b.yaml", ["launch.nodes=2", "launch.min_nodes=1", *overrides])


def _said(**changes: Any) -> dict[str, Any]:
    return {
        "python": "3.12.1",
        "packages": VERSIONS,
        "code": "c0de",
        "missing": [],
        "token_seen": True,
        "gpus": [GPU] * 8,
        "write_bytes_per_s": 2e9,
        "free_bytes": 10**15,
        "disk": None,
        **changes,
    }


def _problems(*answers: Answer, recipe: Recipe | None = None, replies: int | None = None) -> str:
    found = checks.problems(recipe or _recipe(), HERE, answers, len(answers) if replies is None else replies, "cuda")
    return "\n".join(map(str, found))


def test_hosts_that_are_right_have_no_problem() -> None:
    assert _problems(Answer("a", _said()), Answer("b", _said(), skew_s=4.0)) == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"python": "3.11.9"}, "differs from this machine's Python 3.12.3"),
        ({"packages": {**VERSIONS, "torch": "0.9"}}, "host b, torch = '0.9': differs from this machine's version 1.0"),
        ({"packages": {**VERSIONS, "deepspeed": None}}, "host b, deepspeed"),
        ({"code": "beef"}, "differs from this machine's code c0de"),
        ({"missing": ["/data/shards"]}, "host b = '/data/shards': does not exist"),
        ({"token_seen": False}, "lacks a file that this machine wrote to it"),
        ({"disk": "Read-only file system"}, "is not writable: Read-only file system"),
        ({"gpus": [GPU] * 7}, "host b, GPUs = 7: are fewer than launch.gpus_per_node 8"),
        ({"gpus": []}, "are fewer than"),
        ({"gpus": [GPU] * 7 + [{**GPU, "ecc_errors": "3"}]}, "host b, GPU 7 = '3': has uncorrected memory errors"),
        ({"gpus": [{**GPU, "hw_slowdown": "Active"}] + [GPU] * 7}, "host b, GPU 0: is throttled by its hardware"),
        ({"gpus": [{**GPU, "memory_used_mib": "70000"}] + [GPU] * 7}, "GPU 0 = '70000 MiB': is in use"),
        ({"gpus": [{**GPU, "name": "A100"}] * 8}, "differ from the H100 of the other hosts"),
    ],
)
def test_a_host_that_differs_is_named_with_its_hint(changes: dict[str, Any], says: str) -> None:
    told = _problems(Answer("a", _said()), Answer("b", _said(**changes)), Answer("c", _said()))
    assert says in told
    assert "host b" in told
    assert "host a" not in told
    assert "Hint:" in told


def test_memory_without_error_counters_is_no_problem() -> None:
    assert _problems(Answer("a", _said(gpus=[{**GPU, "ecc_errors": "[N/A]"}] * 8))) == ""


def test_a_silent_host_is_named_with_what_ssh_said() -> None:
    told = _problems(Answer("a", _said()), Answer("b", None, "Connection refused"))
    assert "host b: does not answer: Connection refused" in told
    assert "ssh b true" in told


@pytest.mark.parametrize(("skew", "word"), [(41.0, "ahead"), (-41.0, "behind")])
def test_a_clock_that_is_off(skew: float, word: str) -> None:
    assert f"host b: has a clock 41 s {word}" in _problems(Answer("a", _said()), Answer("b", _said(), skew_s=skew))


def test_room_for_the_checkpoints_and_time_to_write_one() -> None:
    told = _problems(Answer("a", _said(free_bytes=10**11)), Answer("b", _said()))
    assert "checkpoints.keep" in told
    assert " free, but 7 checkpoints need " in told
    # 94 GB at 2 x 10 MB/s: 78 minutes, of an interval of 60
    told = _problems(Answer("a", _said(write_bytes_per_s=1e7)), Answer("b", _said(write_bytes_per_s=1e7)))
    assert "checkpoints.every_minutes" in told
    assert "write to a faster file system" in told


def test_the_probe_says_all_that_the_checks_ask_for(tmp_path: Path) -> None:
    token = tmp_path / ".token"
    token.write_text("secret")
    spec = {
        "paths": [str(tmp_path), "/nowhere"],
        "token": str(token),
        "secret": "secret",
        "scratch": str(tmp_path),
        "write_bytes": 1 << 20,
    }
    said = probe.facts(spec)
    assert set(_said()) <= set(said)
    assert said["missing"] == ["/nowhere"]
    assert said["token_seen"]
    assert said["write_bytes_per_s"] > 0
    assert [path.name for path in tmp_path.glob(".write-test*")] == []
    assert len(list(tmp_path.glob(".token.*"))) == 1


def test_the_probe_tells_what_cannot_be_written(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    token = tmp_path / ".token"
    token.write_text("secret")
    said = probe.facts(
        {"paths": [], "token": str(token), "secret": "secret", "scratch": str(in_the_way), "write_bytes": 1}
    )
    assert said["disk"] == "Not a directory"
