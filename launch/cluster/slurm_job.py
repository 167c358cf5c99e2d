"""The jobs that `twofold launch --slurm` submits: batch scripts that a cluster's administrator can read.

Contract: `training_script` and `data_script` are pure; `submit` returns the job's number or raises a `UserError`
with sbatch's message. The training job runs `twofold run`, whose ranks are tasks of one `srun`. How it ends:

    time limit near, or pre-emption   on USR1 or TERM training saves, and the job is requeued
    a node is lost                    Slurm requeues the job (--requeue)
    a rank fails                      launch.restarts within the job; after that the job is requeued if this start
                                      has saved a checkpoint
    user error, or training finished  the job ends
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.launch_schema import SlurmJob
from configs.schema import Recipe
from launch.cluster.hostfile import fitting_nodes
from launch.preflight import choose_device
from pretrain.checkpoints.manifest import MANIFEST_FILE, NAME_FOR_GREP
from twofold.errors import user_error
from twofold.exit_codes import EXIT_CODE_STOPPED
from twofold.files import atomic_path
from twofold.root import ROOT

_GPU_WORDS = ("gres", "gpus", "gpus-per-node")

_TRAIN = """\
cd {root}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
# Compiled kernels go to the node's own disk: hundreds of ranks would wait for a shared one.
export TRITON_CACHE_DIR="${{TMPDIR:-/tmp}}/twofold-$USER/triton"
export TORCHINDUCTOR_CACHE_DIR="${{TMPDIR:-/tmp}}/twofold-$USER/inductor"

# As many of the allocated nodes as every batch divides over.
nodes=$SLURM_JOB_NUM_NODES
for fitting in {fitting}; do
    if [ $fitting -le $SLURM_JOB_NUM_NODES ]; then nodes=$fitting; break; fi
done

# The checkpoint that was committed last: its manifest is its last file.
newest() {{
    ls -t {artifacts}/train-*/checkpoints/step-*/{manifest} 2>/dev/null | grep -E '/{checkpoint}/[^/]+$' | head -1
}}
before=$(newest)

# Pass Slurm's warning on to twofold, which asks all ranks to save; the shell only waits.
warned=
trap 'warned=1; kill -USR1 $twofold 2>/dev/null' USR1 TERM
{preflight}
code={stopped}
if [ -z "$warned" ]; then
    {python} -m launch.cli run {words} launch.launcher=srun launch.nodes=$nodes &
    twofold=$!
    while kill -0 $twofold 2>/dev/null; do wait $twofold; code=$?; done
    # The warning ended twofold before it could listen to signals: nothing is lost.
    if [ -n "$warned" ] && [ $code -eq $((128 + $(kill -l USR1))) ]; then code={stopped}; fi
fi

if [ $code -eq {stopped} ] || {{ [ $code -eq 1 ] && [ "$(newest)" != "$before" ]; }}; then
    # A job that was cancelled, or that Slurm itself requeues, is no longer RUNNING.
    state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format=%T)
    if [ "$state" = RUNNING ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ]; then
        echo "twofold ended with code $code; the job is requeued and resumes from $(newest)"
        scontrol requeue "$SLURM_JOB_ID"
        sleep 60  # until Slurm ends this shell
    fi
fi
exit $code
"""

_PREFLIGHT = """
# Only at the first start: a faulty host, link or file ends the job and is named.
if [ "${{SLURM_RESTART_COUNT:-0}}" -eq 0 ]; then
    {python} -m launch.cli preflight {words} launch.launcher=srun launch.nodes=$nodes || exit
fi
"""

_DATA = """\
cd {root}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
exec {python} -m launch.cli run {words} launch.launcher=srun --until shards
"""


def training_script(recipe: Recipe, words: Sequence[str], check: bool = True) -> str:
    """`words` are the recipe and its overrides as typed; with `check` the job begins with a preflight."""
    job, launch = _job(recipe), recipe.launch
    device, ranks = choose_device(recipe)
    nodes = str(launch.nodes) if launch.min_nodes is None else f"{launch.min_nodes}-{launch.nodes}"
    options = {
        "nodes": nodes,
        "ntasks-per-node": str(ranks),
        "time": job.time,
        "signal": f"B:USR1@{job.save_lead_s}",
        "requeue": "",
        "open-mode": "append",
    }
    if device == "cuda" and not any(word in job.sbatch for word in _GPU_WORDS):
        options["gpus-per-node"] = str(ranks)
    command = _command(words)
    body = _TRAIN.format(
        **command,
        preflight=_PREFLIGHT.format(**command) if check else "",
        fitting=" ".join(map(str, fitting_nodes(recipe, launch.nodes, ranks))),
        checkpoint=NAME_FOR_GREP,
        manifest=MANIFEST_FILE,
        artifacts=shlex.quote(str((Path(recipe.run_dir) / "artifacts").resolve())),
        stopped=EXIT_CODE_STOPPED,
        requeues=job.requeues,
    )
    return _head(recipe, "train", job, options) + body


def data_script(recipe: Recipe, words: Sequence[str]) -> str:
    """One task that builds the stages before training; with data.executor.kind slurm their tasks are array jobs."""
    job = _job(recipe)
    return _head(recipe, "data", job, {"nodes": "1", "ntasks": "1", "time": job.time}) + _DATA.format(**_command(words))


def write(recipe: Recipe, kind: str, script: str) -> Path:
    """Write the script into the run folder."""
    path = Path(recipe.run_dir) / "slurm" / f"{kind}.sbatch"
    with atomic_path(path) as target:
        target.write_text(script, encoding="utf-8")
    return path


def submit(script: Path, after: str | None = None) -> str:
    """Queue the script, after job `after` has succeeded; the job's number."""
    wait = [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []
    try:
        found = subprocess.run(["sbatch", *wait, str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        hint = "run it on a login node of the cluster"
        raise user_error("--slurm", None, "needs sbatch on this machine", hint) from None
    number = re.search(r"Submitted batch job (\d+)", found.stdout)
    if number is None:
        said = " ".join(found.stderr.split()) or "no reason given"
        raise user_error("launch.slurm", str(script), f"was refused by sbatch: {said}", "correct launch.slurm")
    return number[1]


def _command(words: Sequence[str]) -> dict[str, str]:
    root, python = shlex.quote(str(ROOT)), shlex.quote(sys.executable)
    return {"root": root, "python": python, "words": shlex.join(words)}


def _job(recipe: Recipe) -> SlurmJob:
    if recipe.launch.slurm is None:
        raise user_error("launch.slurm", None, "is required by --slurm", "add launch.slurm with its `partition`")
    return recipe.launch.slurm


def _head(recipe: Recipe, kind: str, job: SlurmJob, options: Mapping[str, str]) -> str:
    log = (Path(recipe.run_dir) / "slurm" / f"{kind}-%j.log").resolve()
    ours = {"job-name": f"twofold-{recipe.name}-{kind}", "partition": job.partition, "output": str(log)}
    every = {**ours, **options, **job.sbatch}
    lines = [f"#SBATCH --{name}={_word(value)}" if value else f"#SBATCH --{name}" for name, value in every.items()]
    return "\n".join(["#!/bin/bash", f"# {recipe.name}: written by `twofold launch --slurm`.", *lines, "", ""])


def _word(value: str) -> str:
    """A value as sbatch reads it: it ends an unquoted one at a space or a #."""
    if not re.search(r"[\s#]", value):
        return value
    if '"' in value:
        raise user_error("launch.slurm.sbatch", value, "holds a double quote beside a space", "leave one of them out")
    return f'"{value}"'
