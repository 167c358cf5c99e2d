"""Command lines and environments that start the ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from deepspeed.launcher.multinode_runner import MultiNodeRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.recipe import dump_recipe, load_recipe
from configs.schema import Recipe
from launch.cluster import command_lines
from pretrain import layout, rank_program
from tests.launch.conftest import SMOKE
from twofold.errors import UserError
from twofold.root import ROOT

RUNNER = [sys.executable, "-m", "deepspeed.launcher.runner"]


def _recipe(*overrides: str) -> Recipe:
    return load_recipe(SMOKE, ["launch.device=cpu", "engine.micro_batch_size=1", *overrides])


def _program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_one_host(tmp_path: Path) -> None:
    command = command_lines.start_command(_recipe(), "pretrain.start", ["--out", "o"], tmp_path)
    assert command[:4] == [*RUNNER, "--master_port"]
    assert command[5:] == ["--num_gpus", "2", "--module", "pretrain.start", "--out", "o"]
    assert not command_lines.is_spread(_recipe())


def test_a_hostfile(tmp_path: Path) -> None:
    hostfile = tmp_path / "hostfile"
    recipe = _recipe("launch.nodes=2", f"launch.hostfile={hostfile}", "launch.cpu_ranks=4")
    command = command_lines.start_command(recipe, "pretrain.start", ["--out", "o"], tmp_path)
    assert command[3:7] == ["--hostfile", str(hostfile), "--num_nodes", "2"]
    assert command[command.index("--num_gpus") + 1] == "4"
    assert command[command.index("--enable_each_rank_log") + 1] == str(tmp_path)
    port = int(command[command.index("--master_port") + 1])
    assert 20_000 <= port < 32_000
    again = command_lines.start_command(recipe, "pretrain.start", ["--out", "o"], tmp_path)
    assert again == command, "all hosts must be told the same port"
    assert command_lines.is_spread(recipe)


def test_srun_on_the_first_nodes_of_those_that_slurm_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "scontrol", "for n in 1 2 3 4 5 6; do echo n$n; done", monkeypatch)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-6]")
    recipe = _recipe("launch.nodes=4", "launch.launcher=srun", "launch.cpu_ranks=2")
    command = command_lines.start_command(recipe, "pretrain.start", ["--out", "o"], tmp_path)
    assert command[:5] == ["srun", "--nodes=4", "--nodelist=n1,n2,n3,n4", "--ntasks=8", "--ntasks-per-node=2"]
    assert f"--output={tmp_path}/rank-%t.log" in command
    assert command[-5:] == [sys.executable, "-m", "pretrain.start", "--out", "o"]


def test_what_ranks_need_is_carried_to_other_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".deepspeed_env").write_text("MINE=1\n# no variable\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.chdir(tmp_path)
    recipe = _recipe(
        "launch.nodes=2", f"launch.hostfile={tmp_path / 'hostfile'}", "launch.environment={NCCL_SOCKET_IFNAME: 'ib 0'}"
    )
    found = command_lines.environment(recipe, tmp_path)
    assert found["NCCL_SOCKET_IFNAME"] == "ib 0"
    assert found["PYTHONPATH"].split(":")[0] == str(ROOT)
    carried = Path(found["DS_ENV_FILE"]).read_text().splitlines()
    assert carried[0] == "MINE=1"
    assert {"DS_ACCELERATOR=cpu", "NCCL_SOCKET_IFNAME=ib 0", "WANDB_MODE=offline"} <= set(carried)
    assert Path(found["DS_ENV_FILE"]).stat().st_mode & 0o777 == 0o600
    assert not any(line.startswith(("WANDB_API_KEY", "PYTHONPATH", "#")) for line in carried)
    assert "ServerAliveInterval" in found["PDSH_SSH_ARGS_APPEND"]


def test_the_launchers_limit_is_longer_than_the_watchdogs() -> None:
    for stall_s in (20, 900, 7200):
        told = command_lines.rank_environment(_recipe(f"watch.stall_s={stall_s}"))
        assert 60 * int(told["DEEPSPEED_TIMEOUT"]) > 2 * stall_s


def test_a_slurm_jobs_first_node_is_the_master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = 'case "$2" in hostnames) echo n3; echo n4;; node) echo "NodeName=n3 NodeAddr=10.0.0.3 Port=1";; esac'
    _program(tmp_path, "scontrol", answers, monkeypatch)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[3-4]")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "12")
    assert command_lines.slurm_hosts() == ["n3", "n4"]
    found = command_lines.environment(_recipe("launch.nodes=2", "launch.launcher=srun"), tmp_path)
    assert found["MASTER_ADDR"] == "10.0.0.3"
    assert found["SRUN_CPUS_PER_TASK"] == "12"


def test_srun_outside_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    with pytest.raises(UserError, match="works only within a Slurm job"):
        command_lines.slurm_hosts()


def test_an_allocation_that_slurm_no_longer_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "scontrol", "echo 'Invalid job id specified' >&2; exit 1", monkeypatch)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[3-4]")
    with pytest.raises(UserError, match="Invalid job id") as caught:
        command_lines.slurm_hosts()
    assert "check that the allocation is still running" in str(caught.value)


@pytest.mark.parametrize("deterministic", [True, False])
def test_cublas_is_told_to_sum_in_one_order(deterministic: bool) -> None:
    recipe = load_recipe("configs/exaone3_7p8b.yaml", [f"engine.deterministic={str(deterministic).lower()}"])
    told = command_lines.rank_environment(recipe)
    assert told.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if deterministic else None)
    assert told["TORCH_NCCL_TRACE_BUFFER_SIZE"] == "2000"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))).filter(lambda value: value == value.strip()))
@example("^docker0,lo")
@example("$(touch evaluated)`touch evaluated`")
@example('a "quoted" \\word\\')
@settings(max_examples=30)
def test_a_variable_reaches_a_remote_shell_as_it_is(value: str) -> None:
    """DeepSpeed's own code writes the export, and a real shell reads it as the one behind ssh would."""

    class Exports(MultiNodeRunner):  # type: ignore[misc]
        backend_exists = get_cmd = None

    runner = Exports(SimpleNamespace(user_args=[], user_script=""), "")
    runner.add_export("NAME", command_lines._escaped(value) + "\n")
    shell = f"export NAME={runner.exports['NAME']}; printenv NAME"
    found = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, env={})
    assert found.stdout == f"{value}\n"


@pytest.mark.parametrize(("masked", "gpus", "used"), [("2,3", 8, "2,3"), ("5, 1,4", 2, "5,1"), ("0", 8, "0")])
def test_the_visible_devices_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masked: str, gpus: int, used: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", masked)
    recipe = load_recipe(SMOKE, ["launch.device=auto", f"launch.gpus_per_node={gpus}"])
    command = command_lines.start_command(recipe, "pretrain.start", [], tmp_path)
    assert command[command.index("--include") + 1] == f"localhost:{used}"
    assert "--num_gpus" not in command


def test_a_visible_device_that_deepspeed_cannot_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-4f2a")
    with pytest.raises(UserError, match=r"CUDA_VISIBLE_DEVICES = 'GPU-4f2a': .*nvidia-smi -L"):
        command_lines.start_command(load_recipe(SMOKE, ["launch.device=auto"]), "pretrain.start", [], tmp_path)


def test_a_secret_reaches_other_hosts_in_a_file_of_its_owner_and_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hush")
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("a slots=2\nb slots=2\n")
    recipe = _recipe("launch.environment_from=[WANDB_API_KEY]", f"launch.hostfile={hostfile}", "launch.nodes=2")
    assert "hush" not in dump_recipe(recipe)
    found = command_lines.environment(recipe, tmp_path)
    private = tmp_path / layout.ENVIRONMENT_FILE
    assert json.loads(private.read_text()) == {"WANDB_API_KEY": "hush"}
    assert private.stat().st_mode & 0o077 == 0
    assert "hush" not in Path(found["DS_ENV_FILE"]).read_text()
    monkeypatch.delenv("WANDB_API_KEY")
    rank_program.exit_code_of(lambda: 0, tmp_path)
    assert os.environ.pop("WANDB_API_KEY") == "hush"
    with pytest.raises(
        UserError, match=r"environment_from = 'WANDB_API_KEY': is not set .*Hint: `export WANDB_API_KEY"
    ):
        command_lines.environment(recipe, tmp_path)


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "aws_secret_access_key", "DB_PASSWORD"])
def test_a_secret_in_the_recipe_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"holds {name}, which reads like a secret.*environment_from=\[{name}\]"):
        _recipe(f"launch.environment={{{name}: x}}")
