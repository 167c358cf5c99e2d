"""Two hosts on this machine: network namespaces joined by a cable, an sshd in each, one file system.

For tests marked `cluster`; as root, with Debian's `iproute2 openssh-server pdsh`. The link can be cut.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT

PROGRAMS = ("ip", "sshd", "ssh", "ssh-keygen", "pdsh")
ADDRESSES = ("10.99.0.1", "10.99.0.2")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def why_not() -> str | None:
    """What is missing here, or None."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_PATH)]
    if missing:
        return f"no two hosts here: {', '.join(missing)} (apt-get install iproute2 openssh-server pdsh)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = _asked("ip", "netns", "add", "twofold-probe")
    _asked("ip", "netns", "del", "twofold-probe")
    return None if tried.returncode == 0 else f"no network namespaces here: {tried.stderr.strip()}"


class TwoHosts:
    """Runs commands on the first host and cuts the cable."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names
        self.hostfile = folder / "hostfile"
        self.hostfile.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))

    def start(self, *command: str, host: int = 0, **environment: str) -> subprocess.Popen[str]:
        """Start a command on a host, from the checkout's root."""
        # ssh finds its configuration by the password file, not by HOME: the one in PATH names ours.
        ours = {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "WANDB_MODE": "offline"}
        variables = {**_environment(), **ours, **environment}
        variables["PATH"] = f"{self.folder / 'bin'}:{variables['PATH']}"
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[host], *command],
            cwd=ROOT,
            env=variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def twofold(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-m", "launch.cli", *arguments, **environment)

    def link(self, up: bool) -> None:
        """Plug the cable of the second host in, or out."""
        _ip("-n", self.names[1], "link", "set", "eth0", "up" if up else "down")

    def processes(self, words: str) -> list[int]:
        """Those on either host whose command line has `words`."""
        found = []
        for name in self.names:
            for pid in _asked("ip", "netns", "pids", name).stdout.split():
                try:
                    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if words in line:
                    found.append(int(pid))
        return found


@contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Both are gone when the block ends."""
    names = tuple(f"twofold-{os.getpid()}-{number}" for number in (1, 2))
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "eth0", "up")
        _keys(folder)
        for name in names:
            servers.append(_sshd(folder, name))
        hosts = TwoHosts(folder, names)
        for number in range(2):
            _eventually(functools.partial(_reaches, hosts, number))
        yield hosts
    finally:
        for name in names:
            for pid in _asked("ip", "netns", "pids", name).stdout.split():
                _asked("kill", "-9", pid)
            _asked("ip", "netns", "del", name)
        for server in servers:
            server.wait(10)


def _reaches(hosts: TwoHosts, number: int) -> bool:
    return hosts.start("ssh", ADDRESSES[1 - number], "true", host=number).wait() == 0


def _keys(folder: Path) -> None:
    """A key for hosts and user, and an `ssh` that uses it: what a user's own configuration does on a cluster."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    config = folder / "ssh_config"
    config.write_text(
        f"Host *\n  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n  LogLevel ERROR\n"
    )
    ssh = folder / "bin" / "ssh"
    ssh.parent.mkdir()
    real = shutil.which("ssh", path=_PATH)
    ssh.write_text(f'#!/bin/sh\nexec {real} -F {config} "$@"\n')
    ssh.chmod(0o755)


def _sshd(folder: Path, name: str) -> subprocess.Popen[bytes]:
    Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    keys = f"AuthorizedKeysFile={folder / 'authorized_keys'}"
    options = [keys, "StrictModes=no", "PermitRootLogin=yes", "PidFile=none", "UsePAM=no", "MaxStartups=100"]
    words = [word for option in options for word in ("-o", option)]
    log = (folder / f"sshd-{name}.log").open("wb")
    server = shutil.which("sshd", path=_PATH)
    assert server
    command = ["ip", "netns", "exec", name, server, "-D", "-e", "-f", "/dev/null", "-h", str(folder / "host"), *words]
    return subprocess.Popen(command, stdout=log, stderr=log, env=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _PATH}


def _asked(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, env=_environment())


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, env=_environment())


def _eventually(good, seconds: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < deadline, "the hosts do not come up"
        time.sleep(0.2)
