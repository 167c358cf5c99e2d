"""Facts about one host: `python -m launch.cluster.probe SPEC`, run there by ssh or srun.

Contract: prints one line, MARK and a JSON object. Uses only the standard library, so that a host without the
project's packages can report that. Writes only a reply file beside the token and a scratch file that it removes.
SPEC is JSON: `host` (the name to answer with), `paths` (must exist), `token` and `secret` (a file that the caller
wrote, and its content), `scratch` (a folder for the write test), `write_bytes`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from twofold.root import ROOT

MARK = "twofold-probe "
PACKAGES = ("torch", "deepspeed", "numpy", "safetensors", "pydantic", "wandb")
"""Packages whose versions must be the same on all hosts."""
_CODE = ("twofold", "configs", "tokenizer", "pretrain")
_TOKEN_WAIT_S = 10.0
_GPU_QUERY = {
    "name": "name",
    "memory_mib": "memory.total",
    "memory_used_mib": "memory.used",
    "ecc_errors": "ecc.errors.uncorrected.volatile.total",
    "hw_slowdown": "clocks_throttle_reasons.hw_slowdown",
}


def facts(spec: dict[str, Any]) -> dict[str, Any]:
    """Everything that checks.py reads."""
    scratch = Path(spec["scratch"])
    return {
        "host": os.environ.get("SLURMD_NODENAME") or spec.get("host") or socket.gethostname(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "code": code_digest(),
        "missing": [path for path in spec["paths"] if not Path(path).exists()],
        "token_seen": _reply(Path(spec["token"]), spec["secret"]),
        "gpus": _gpus(),
        **_disk(scratch, int(spec["write_bytes"])),
        "time": time.time(),
    }


def code_digest() -> str:
    """A digest of all Python files that a rank imports from this checkout."""
    digest = hashlib.sha256()
    for package in _CODE:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _reply(token: Path, secret: str) -> bool:
    """Whether the caller's file is visible here, which may take moments; a reply file tells the caller."""
    deadline = time.monotonic() + _TOKEN_WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if token.read_text() == secret:
                name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
                token.with_name(f"{token.name}.{name}-{os.getpid()}").write_text(secret)
                return True
        time.sleep(0.5)
    return False


def _disk(folder: Path, write_bytes: int) -> dict[str, Any]:
    path = folder / f".write-test-{socket.gethostname()}-{os.getpid()}"
    block = os.urandom(1 << 20)
    try:
        begin = time.perf_counter()
        with path.open("wb") as stream:
            for _ in range(max(1, write_bytes >> 20)):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        seconds = time.perf_counter() - begin
        return {"write_bytes_per_s": write_bytes / seconds, "free_bytes": shutil.disk_usage(folder).free, "disk": None}
    except OSError as error:
        return {"write_bytes_per_s": None, "free_bytes": None, "disk": error.strerror or str(error)}
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _gpus() -> list[dict[str, str]]:
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU_QUERY.values())}", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = found.stdout.splitlines() if found.returncode == 0 else []
    return [dict(zip(_GPU_QUERY, (word.strip() for word in line.split(",")), strict=False)) for line in lines if line]


def main(arguments: Sequence[str]) -> int:
    print(MARK + json.dumps(facts(json.loads(arguments[0]))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
