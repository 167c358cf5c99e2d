"""One command on every host, through an `ssh` on the path that is a script of ours and runs it here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from launch.cluster import hosts

SSH = """#!/bin/bash
while [[ $1 == -o ]]; do shift 2; done
[[ $1 == -- ]] || exit 99
shift; host=$1; shift
case $host in
    refused) echo "ssh: connect to host refused port 22: Connection refused" >&2; exit 255;;
    slow) exec sleep 20;;
    chatty) echo "Welcome to chatty"; echo "quota: 3 files" >&2;;
    bare) echo "bash: python: command not found" >&2; exit 127;;
    ahead) exec bash -c "$* | sed -E 's/\\"time\\": ([0-9]{10})/\\"time\\": 9999999999/'";;
esac
exec bash -c "$*"
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is asked, with our ssh first on the path."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    token = tmp_path / "token"
    token.write_text("secret")
    return {"paths": [], "token": str(token), "secret": "secret", "scratch": str(tmp_path), "write_bytes": 1}


def test_every_host_answers_in_order_and_failures_say_why(spec: dict[str, Any]) -> None:
    names = ["good", "refused", "chatty", "bare", "ahead"]
    good, refused, chatty, bare, ahead = hosts.ask_by_ssh(names, spec, 60)
    assert good.said is not None
    assert good.said["host"] == "good"
    assert good.said["token_seen"]
    assert good.skew_s == 0.0
    assert refused.said is None
    assert refused.failure.endswith("Connection refused")
    assert chatty.said is not None
    assert chatty.said["host"] == "chatty"
    assert bare.failure == "bash: python: command not found"
    assert ahead.skew_s > 1e9


def test_a_host_that_says_nothing_is_given_up(spec: dict[str, Any]) -> None:
    (answer,) = hosts.ask_by_ssh(["slow"], spec, 0.5)
    assert answer.failure == "no answer within 0 s"


@pytest.mark.usefixtures("spec")
def test_those_that_can_be_reached() -> None:
    assert hosts.reachable(["good", "refused", "chatty"]) == ["good", "chatty"]


def test_without_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (answer,) = hosts.ask_by_ssh(["anywhere"], {}, 5)
    assert answer.failure == "ssh is not installed here"
