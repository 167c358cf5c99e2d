"""A private Slurm of two nodes on this machine: munged, slurmctld and two slurmd, gone when the test ends.

For tests marked `slurm`; as root, with Debian's `slurm-wlm` and `munge` (no configuration of theirs is used).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")


def why_not() -> str | None:
    """What is missing here, or None."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_PATH)]
    if missing:
        return f"no Slurm here: {', '.join(missing)} (apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "a private Slurm needs root"


@contextmanager
def cluster(folder: Path) -> Iterator[Path]:
    """Yields the path of its slurm.conf; SLURM_CONF is set meanwhile."""
    folder.chmod(0o755)
    munge = folder / "munge"
    munge.mkdir(mode=0o755)
    key = munge / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    sock = munge / "socket"
    config = folder / "slurm.conf"
    config.write_text(_config(folder, sock))
    programs = [
        [
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={sock}",
            f"--pid-file={munge / 'pid'}",
            f"--log-file={munge / 'log'}",
            f"--seed-file={munge / 'seed'}",
        ],
        ["slurmctld", "-D", "-i", "-f", str(config)],
        ["slurmd", "-D", "-N", "n1", "-f", str(config)],
        ["slurmd", "-D", "-N", "n2", "-f", str(config)],
    ]
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(config)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for program in programs:
            log = (folder / f"{program[0]}-{len(running)}.log").open("wb")
            path = shutil.which(program[0], path=_PATH)
            assert path
            running.append(subprocess.Popen([path, *program[1:]], stdout=log, stderr=log))
            if program[0] == "munged":
                _eventually(sock.exists)
        _eventually(lambda: _idle_nodes() == 2)
        yield config
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def _config(folder: Path, sock: Path) -> str:
    host = socket.gethostname()
    controller, *nodes = free_ports(3)
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={controller}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={sock}",
        "CryptoType=crypto/munge",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "ReturnToService=2",
        "MpiDefault=none",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=1,bf_interval=1",
        "MinJobAge=10",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/ctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/ctld.log",
        f"SlurmdLogFile={folder}/slurmd-%n.log",
        "AccountingStorageType=accounting_storage/none",
        "JobAcctGatherType=jobacct_gather/none",
        *(
            f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000"
            for number, port in enumerate(nodes, 1)
        ),
        "PartitionName=data Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP",
    ]
    return "\n".join(lines) + "\n"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _idle_nodes() -> int:
    found = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%T"], capture_output=True, text=True, check=False
    )
    return found.stdout.split().count("idle")


def _eventually(good) -> None:  # type: ignore[no-untyped-def]
    for _ in range(300):
        if good():
            return
        time.sleep(0.1)
    raise AssertionError("the private Slurm does not come up")
