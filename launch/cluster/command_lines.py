"""The command line and the environment that start the ranks: one host, a hostfile's hosts, a Slurm job's nodes.

Contract: pure except for looking up free ports, devices (`choose_device`) and Slurm's nodes; the returned command
also works when typed by hand. `module` is one of pretrain's: the trainer or its dry run. Over several hosts each
rank has its own log in `logs`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.schema import Recipe
from launch.preflight import choose_device
from pretrain import layout
from twofold.errors import user_error
from twofold.files import write_private
from twofold.root import ROOT

_PASSED_ON = ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_ENTITY", "HF_HOME")
"""Variables of the caller that ranks on other hosts get; keys stay in netrc, since command lines are public."""
_ACTIVE = re.compile(r'[\\"$`]')
"""What a shell acts on within double quotes."""
_KEEPALIVE = "-o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=10 -o ServerAliveCountMax=3"
"""Ends an ssh whose host is gone after half a minute, instead of after TCP's hours."""


def is_spread(recipe: Recipe) -> bool:
    """Whether ssh or srun starts the ranks, possibly on other hosts only."""
    return recipe.launch.hostfile is not None or recipe.launch.launcher == "srun"


def start_command(recipe: Recipe, module: str, arguments: Sequence[str], logs: Path) -> list[str]:
    """The command that starts `python -m module arguments` once per rank."""
    if recipe.launch.launcher == "srun":
        return _srun(recipe, module, arguments, logs)
    return _deepspeed(recipe, module, arguments, logs)


def environment(recipe: Recipe, scratch: Path) -> dict[str, str]:
    """The environment of `start_command`'s process; the file that carries it to other hosts goes into `scratch`."""
    ours = rank_environment(recipe)
    named = _from_here(recipe)
    if recipe.launch.launcher == "srun":
        first = slurm_hosts()[0]
        ours |= {"MASTER_ADDR": _slurm_address(first), "MASTER_PORT": str(_port_of(str(scratch)))}
        if "SLURM_CPUS_PER_TASK" in os.environ:
            ours["SRUN_CPUS_PER_TASK"] = os.environ["SLURM_CPUS_PER_TASK"]
    found = {**os.environ, **ours}
    if recipe.launch.hostfile is not None:
        # DeepSpeed passes on variables whose names begin with NCCL or PYTHON, and those in this file.
        carried = {name: value for name, value in ours.items() if name != "PYTHONPATH"}
        carried |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # DeepSpeed's variables stand on the command lines of ssh, which everybody may list; ranks read this file.
        write_private(scratch / layout.ENVIRONMENT_FILE, json.dumps(named))
        found["DS_ENV_FILE"] = str(_environment_file(carried, scratch))
        found["PDSH_SSH_ARGS_APPEND"] = f"{os.environ.get('PDSH_SSH_ARGS_APPEND', '')} {_KEEPALIVE}".strip()
    return found


def rank_environment(recipe: Recipe) -> dict[str, str]:
    """What each rank needs besides the launcher's own variables."""
    device, ranks = choose_device(recipe)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {
        "PYTHONPATH": os.pathsep.join(paths),
        "TOKENIZERS_PARALLELISM": "false",
        # Longer than the watchdog's limit: only for a process that the watchdog cannot reach.
        "DEEPSPEED_TIMEOUT": str(max(1, round(2 * recipe.watch.stall_s / 60) + 1)),
    }
    if device == "cpu":
        threads = max(1, len(os.sched_getaffinity(0)) // ranks)
        ours |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(threads)}
    else:
        # NCCL's flight recorder writes the last collectives when one hangs (pretrain/hooks/watchdog.py).
        ours |= {"TORCH_NCCL_TRACE_BUFFER_SIZE": "2000", "TORCH_NCCL_DUMP_ON_TIMEOUT": "1"}
        if recipe.engine.deterministic:
            ours["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # otherwise cuBLAS may split sums differently each time
    return ours | recipe.launch.environment


def _from_here(recipe: Recipe) -> dict[str, str]:
    """The variables that `launch.environment_from` names."""
    for name in recipe.launch.environment_from:
        if name not in os.environ:
            hint = f"`export {name}=…` before the start, or take it from the list"
            raise user_error("launch.environment_from", name, "is not set in this environment", hint)
    return {name: os.environ[name] for name in recipe.launch.environment_from}


def slurm_hosts() -> list[str]:
    """Names of this Slurm job's nodes."""
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if nodes is None:
        hint = "submit one with `twofold launch RECIPE --slurm`"
        raise user_error("launch.launcher", "srun", "works only within a Slurm job", hint)
    return _output_of("scontrol", "show", "hostnames", nodes).split()


def _deepspeed(recipe: Recipe, module: str, arguments: Sequence[str], logs: Path) -> list[str]:
    launch = recipe.launch
    device, ranks = choose_device(recipe)
    if launch.hostfile is None:
        where = ["--master_port", str(_free_port()), *_slots(device, ranks)]
    else:
        where = ["--hostfile", str(Path(launch.hostfile).resolve()), "--num_nodes", str(launch.nodes)]
        # With a single host DeepSpeed would otherwise start the ranks here, whatever the host's name.
        where += ["--force_multi", "--master_port", str(_port_of(str(logs)))]
        where += ["--enable_each_rank_log", str(logs.resolve()), "--num_gpus", str(ranks)]
    return [sys.executable, "-m", "deepspeed.launcher.runner", *where, "--module", module, *arguments]


def _slots(device: str, ranks: int) -> list[str]:
    """This machine's devices that train: the first of those that CUDA_VISIBLE_DEVICES allows.

    With --num_gpus DeepSpeed's launcher ignores the variable and takes devices 0, 1, …
    """
    masked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if device != "cuda" or masked is None:
        return ["--num_gpus", str(ranks)]
    allowed = [word.strip() for word in masked.split(",")][:ranks]
    if not all(word.isdecimal() for word in allowed):
        hint = "name devices by their numbers in `nvidia-smi -L`, for example CUDA_VISIBLE_DEVICES=2,3"
        raise user_error("CUDA_VISIBLE_DEVICES", masked, "names devices in a way that DeepSpeed cannot read", hint)
    return ["--include", f"localhost:{','.join(allowed)}"]


def _srun(recipe: Recipe, module: str, arguments: Sequence[str], logs: Path) -> list[str]:
    _, ranks = choose_device(recipe)
    nodes = recipe.launch.nodes
    used = ",".join(slurm_hosts()[:nodes])  # the first one is the master
    where = [f"--nodes={nodes}", f"--nodelist={used}", f"--ntasks={nodes * ranks}", f"--ntasks-per-node={ranks}"]
    output = ["--unbuffered", f"--output={logs.resolve()}/rank-%t.log", "--open-mode=append"]
    return ["srun", *where, "--kill-on-bad-exit=1", *output, sys.executable, "-m", module, *arguments]


def _environment_file(carried: Mapping[str, str], scratch: Path) -> Path:
    """The user's own .deepspeed_env files followed by our variables, in DeepSpeed's format."""
    lines = []
    for folder in (Path.home(), Path.cwd()):
        own = folder / ".deepspeed_env"
        if own.is_file():
            lines += [line for line in own.read_text(encoding="utf-8").splitlines() if "=" in line]
    lines += [f"{name}={_escaped(value)}" for name, value in carried.items()]
    path = (scratch / "deepspeed_env").resolve()
    write_private(path, "".join(f"{line}\n" for line in lines))
    return path


def _escaped(value: str) -> str:
    """A value for DeepSpeed's file of variables.

    DeepSpeed writes it into the remote shell's `export NAME="value"`, in double quotes but not escaped.
    """
    return _ACTIVE.sub(r"\\\g<0>", value)


def _slurm_address(host: str) -> str:
    """The address of a node: its name on most clusters, NodeAddr where the administrator set one."""
    for word in _output_of("scontrol", "show", "node", host).split():
        if word.startswith("NodeAddr="):
            return word.partition("=")[2]
    return host


def _output_of(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        reason = " ".join(found.stderr.split()) or f"exit code {found.returncode}"
        hint = "check that the allocation is still running"
        raise user_error("slurm", " ".join(command), f"failed: {reason}", hint)
    return found.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _port_of(run: str) -> int:
    """A port for a master on another host: fixed for one run, and rarely that of another."""
    return 20_000 + int.from_bytes(hashlib.blake2b(run.encode(), digest_size=4).digest(), "little") % 12_000
