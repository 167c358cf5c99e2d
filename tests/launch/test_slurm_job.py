"""The batch scripts, without a Slurm: their lines, and what bash makes of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from configs.recipe import load_recipe
from configs.schema import Recipe
from launch.cluster import slurm_job
from tests.launch.conftest import SMOKE
from twofold.errors import UserError
from twofold.exit_codes import EXIT_CODE_STOPPED

JOB = "launch.slurm={partition: gpu, time: '1-00:00:00', save_lead_s: 600, requeues: 2, sbatch: {account: llm}}"


def _recipe(run_dir: Path, *overrides: str) -> Recipe:
    told = [
        "launch.device=cpu",
        "launch.nodes=4",
        "engine.micro_batch_size=2",
        "launch.launcher=srun",
        f"run_dir={run_dir}",
        JOB,
        *overrides,
    ]
    return load_recipe(SMOKE, told)


def _options(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]


def test_the_options_of_the_training_job(tmp_path: Path) -> None:
    script = slurm_job.training_script(_recipe(tmp_path), ["r.yaml", "seed=7"])
    assert _options(script) == [
        "job-name=twofold-smoke-train",
        "partition=gpu",
        f"output={tmp_path}/slurm/train-%j.log",
        "nodes=4",
        "ntasks-per-node=2",
        "time=1-00:00:00",
        "signal=B:USR1@600",
        "requeue",
        "open-mode=append",
        "account=llm",
    ]


def test_fewer_nodes_and_gpus_where_the_recipe_allows() -> None:
    script = slurm_job.training_script(load_recipe("configs/exaone3_7p8b.yaml", ["launch.launcher=srun"]), ["r.yaml"])
    assert {"nodes=32-64", "ntasks-per-node=8", "gpus-per-node=8", "exclusive"} <= set(_options(script))
    own = "launch.slurm.sbatch={gres: 'gpu:h100:8'}"
    script = slurm_job.training_script(load_recipe("configs/exaone3_7p8b.yaml", ["launch.launcher=srun", own]), ["r"])
    assert "gres=gpu:h100:8" in _options(script)
    assert not any(option.startswith("gpus-per-node") for option in _options(script))


def test_the_data_job_is_one_task(tmp_path: Path) -> None:
    script = slurm_job.data_script(_recipe(tmp_path), ["r.yaml"])
    assert {"nodes=1", "ntasks=1"} <= set(_options(script))
    assert script.rstrip().endswith("run r.yaml launch.launcher=srun --until shards")


PROGRAMS = {
    "python": 'echo "$@" >> calls; case "$3" in preflight) exit ${PREFLIGHT:-0};; esac; exec bash "$TRAINING"',
    "squeue": "echo ${STATE:-RUNNING}",
    "scontrol": 'echo "scontrol $@" >> calls',
    "sleep": "true",
}


def _run(tmp_path: Path, training: str, *overrides: str, **environment: str) -> tuple[int, list[str]]:
    """Run the training job's script as a batch shell would, with programs of ours; (exit code, calls)."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "training").write_text(training)
    script = slurm_job.training_script(_recipe(tmp_path, *overrides), ["a recipe.yaml", "seed=7"])
    body = "\n".join(line for line in script.splitlines() if not line.startswith("cd "))
    body = body.replace(slurm_job.shlex.quote(slurm_job.sys.executable), str(tmp_path / "python"))
    told = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "USER": "u"}
    found = subprocess.run(
        ["bash", "-c", body],
        cwd=tmp_path,
        env={**told, "TRAINING": str(tmp_path / "training"), **environment},
        timeout=30,
        check=False,
    )
    return found.returncode, (tmp_path / "calls").read_text().splitlines()


REQUEUE = "scontrol requeue 7"
CHECKPOINT = "mkdir -p artifacts/train-abc/checkpoints/step-00000010; touch $_/manifest.json\n"
COPY = "mkdir -p artifacts/train-abc/checkpoints/step-00000010-backup; touch $_/manifest.json\n"
UNFINISHED = "mkdir -p artifacts/train-abc/checkpoints/step-00000010.partial; touch $_/manifest.json\n"


def test_training_that_is_done_ends_the_job(tmp_path: Path) -> None:
    code, calls = _run(tmp_path, "exit 0")
    assert code == 0
    assert calls == [
        "-m launch.cli preflight a recipe.yaml seed=7 launch.launcher=srun launch.nodes=3",
        "-m launch.cli run a recipe.yaml seed=7 launch.launcher=srun launch.nodes=3",
    ]


@pytest.mark.parametrize(("given", "used"), [(8, 8), (7, 4), (4, 4), (3, 2)])
def test_as_many_nodes_are_used_as_the_batch_divides_over(tmp_path: Path, given: int, used: int) -> None:
    told = ("launch.nodes=8", "launch.min_nodes=2", "launch.cpu_ranks=1", "engine.micro_batch_size=4")
    _, calls = _run(tmp_path, "exit 0", *told, SLURM_JOB_NUM_NODES=str(given))
    assert [call.split()[-1] for call in calls] == 2 * [f"launch.nodes={used}"]


def test_what_preflight_finds_ends_the_job(tmp_path: Path) -> None:
    code, calls = _run(tmp_path, "exit 0", PREFLIGHT="2")
    assert code == 2
    assert len(calls) == 1


def test_a_job_that_goes_on_has_no_preflight(tmp_path: Path) -> None:
    _, calls = _run(tmp_path, "exit 0", SLURM_RESTART_COUNT="1")
    assert [call.split()[2] for call in calls] == ["run"]


@pytest.mark.parametrize(
    ("training", "environment", "queued"),
    [
        (f"exit {EXIT_CODE_STOPPED}", {}, True),
        (f"exit {EXIT_CODE_STOPPED}", {"SLURM_RESTART_COUNT": "2"}, False),
        (f"exit {EXIT_CODE_STOPPED}", {"STATE": "CANCELLED"}, False),
        ("exit 1", {}, False),
        (CHECKPOINT + "exit 1", {}, True),
        (CHECKPOINT + "exit 2", {}, False),
        (COPY + UNFINISHED + "exit 1", {}, False),
    ],
)
def test_when_the_job_is_queued_again(tmp_path: Path, training: str, environment: dict[str, str], queued: bool) -> None:
    _, calls = _run(tmp_path, training, **environment)
    assert (REQUEUE in calls) == queued


def test_slurms_warning_reaches_training_and_its_end_is_waited_for(tmp_path: Path) -> None:
    waits = f"trap 'touch saved; exit {EXIT_CODE_STOPPED}' USR1\nkill -USR1 $PPID\nwhile true; do /bin/sleep 0.05; done"
    code, calls = _run(tmp_path, waits)
    assert code == EXIT_CODE_STOPPED
    assert (tmp_path / "saved").exists()
    assert REQUEUE in calls


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"launch\.slurm: is required by --slurm"):
        slurm_job.training_script(load_recipe(SMOKE, ["launch.device=cpu"]), ["r"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs sbatch on this machine"):
        slurm_job.submit(tmp_path / "script")


def test_a_warning_that_ends_twofold_before_it_listens_requeues_the_job(tmp_path: Path) -> None:
    code, calls = _run(tmp_path, "kill -USR1 $PPID; sleep 0.2; kill -USR1 $$")
    assert code == EXIT_CODE_STOPPED
    assert REQUEUE in calls


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ('launch.slurm.sbatch={comment: "a\\nrm -rf x"}', "launch.slurm.sbatch"),
        ('launch.slurm.sbatch={"a b": "1"}', "launch.slurm.sbatch"),
        ('launch.slurm.partition="gpu\\ncurl x"', "launch.slurm.partition"),
        ('launch.slurm.sbatch={gpus-per-task: "1"}', "gpus-per-task"),
        ('launch.environment={"A B": "1"}', "launch.environment"),
        ('launch.environment={A: "1\\n2"}', "launch.environment"),
        ('launch.environment={A: " 1"}', "launch.environment"),
    ],
)
def test_what_a_script_cannot_hold_is_refused(tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        _recipe(tmp_path, override)


def test_a_value_with_spaces_is_one_word_to_sbatch(tmp_path: Path) -> None:
    script = slurm_job.data_script(_recipe(tmp_path, "launch.slurm.sbatch={comment: two words}"), ["r.yaml"])
    assert '#SBATCH --comment="two words"' in script.splitlines()
