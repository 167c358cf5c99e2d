"""The jobs that `twofold launch --slurm` submits: batch scripts that a cluster's administrator can read.

Contract: `training_script` and `data_script` are pure; `submit` returns the job's number or raises `UserError`
with what sbatch said. The training job runs `twofold run`, whose ranks are tasks of one `srun`. Ends of it:

    the time limit draws near, or Slurm pre-empts    USR1 or TERM: training saves, and the job is queued again
    a node is lost                                   Slurm queues the job again (--requeue)
    a rank fails                                     launch.restarts within the job; then queued again, if a new
                                                     checkpoint was made since this start
    a mistake of the user, or training is done       the job ends
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
from twofold.errors import user_error
from twofold.exit_codes import EXIT_CODE_STOPPED
from twofold.files import atomic_path
from twofold.root import ROOT

_GPU_WORDS = ("gres", "gpus", "gpus-per-node", "gpus-per-task")

_TRAIN = """\
cd {root}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
# Compiled kernels are kept on the node's own disk: hundreds of ranks would wait for a shared one.
export TRITON_CACHE_DIR="${{TMPDIR:-/tmp}}/twofold-$USER/triton"
export TORCHINDUCTOR_CACHE_DIR="${{TMPDIR:-/tmp}}/twofold-$USER/inductor"

# Of the nodes that Slurm gave, as many as every batch divides over.
nodes=$SLURM_JOB_NUM_NODES
for fitting in {fitting}; do
    if [ $fitting -le $SLURM_JOB_NUM_NODES ]; then nodes=$fitting; break; fi
done

newest() {{ ls -d {artifacts}/train-*/checkpoints/step-* 2>/dev/null | sort | tail -1; }}
before=$(newest)

# Slurm's warning goes on to twofold, which asks all ranks to save; the shell only waits.
warned=
trap 'warned=1; kill -USR1 $twofold 2>/dev/null' USR1 TERM
{preflight}
code={stopped}
if [ -z "$warned" ]; then
    {python} -m launch.cli run {words} launch.launcher=srun launch.nodes=$nodes &
    twofold=$!
    while kill -0 $twofold 2>/dev/null; do wait $twofold; code=$?; done
fi

if [ $code -eq {stopped} ] || {{ [ $code -eq 1 ] && [ "$(newest)" != "$before" ]; }}; then
    # A job that was cancelled, or that Slurm itself queues again, is no longer RUNNING.
    state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format=%T)
    if [ "$state" = RUNNING ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ]; then
        echo "twofold ended with code $code and goes on from $(newest)"
        scontrol requeue "$SLURM_JOB_ID"
        sleep 60  # until Slurm ends this shell
    fi
fi
exit $code
"""

_PREFLIGHT = """
# Once, before anything long: a host, a link or a file that is not right ends the job with its name.
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
    """`words` are the recipe and its overrides, as typed; with `check` the job begins with a preflight."""
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
    said = {"python": shlex.quote(sys.executable), "words": shlex.join(words)}
    body = _TRAIN.format(
        **said, root=shlex.quote(str(ROOT)), preflight=_PREFLIGHT.format(**said) if check else "",
        fitting=" ".join(map(str, fitting_nodes(recipe, launch.nodes, ranks))),
        artifacts=shlex.quote(str((Path(recipe.run_dir) / "artifacts").resolve())),
        stopped=EXIT_CODE_STOPPED, requeues=job.requeues,
    )  # fmt: skip
    return _head(recipe, "train", job, options) + body


def data_script(recipe: Recipe, words: Sequence[str]) -> str:
    """One task that makes the stages before training; with data.executor.kind slurm their tasks are array jobs."""
    job = _job(recipe)
    body = _DATA.format(root=shlex.quote(str(ROOT)), python=shlex.quote(sys.executable), words=shlex.join(words))
    return _head(recipe, "data", job, {"nodes": "1", "ntasks": "1", "time": job.time}) + body


def write(recipe: Recipe, kind: str, script: str) -> Path:
    """Keep the script in the run folder."""
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
        raise user_error(
            "--slurm", None, "needs sbatch on this machine", "run on a login node of the cluster"
        ) from None
    number = re.search(r"Submitted batch job (\d+)", found.stdout)
    if number is None:
        said = " ".join(found.stderr.split()) or "no reason given"
        raise user_error("launch.slurm", str(script), f"was refused by sbatch: {said}", "correct launch.slurm")
    return number[1]


def _job(recipe: Recipe) -> SlurmJob:
    if recipe.launch.slurm is None:
        raise user_error("launch.slurm", None, "is needed for --slurm", "add launch.slurm with its `partition`")
    return recipe.launch.slurm


def _head(recipe: Recipe, kind: str, job: SlurmJob, options: Mapping[str, str]) -> str:
    log = (Path(recipe.run_dir) / "slurm" / f"{kind}-%j.log").resolve()
    every = {
        "job-name": f"twofold-{recipe.name}-{kind}",
        "partition": job.partition,
        "output": str(log),
        **options,
        **job.sbatch,
    }
    lines = [f"#SBATCH --{name}={value}" if value else f"#SBATCH --{name}" for name, value in every.items()]
    return "\n".join(["#!/bin/bash", f"# {recipe.name}: written by `twofold launch --slurm`.", *lines, "", ""])
