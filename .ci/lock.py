"""Write requirements.lock: the pins of constraints.txt with the hashes of the files that pip installs for them.

Usage: `python .ci/lock.py`, in an environment of the Python version to lock; it installs nothing. Each run adds the
files for its Python version and platform, and keeps the hashes of other versions where the pin has not changed.
torch and ray are left out: torch's build depends on the machine (CPU, CUDA), and ray is optional.

To install from the lock: `pip install --require-hashes --no-deps -r requirements.lock`, then
`pip install -c constraints.txt torch`, then `pip install --no-deps -e .`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
LEFT_OUT = ("torch", "ray")
HEADER = "# Written by .ci/lock.py from constraints.txt, whose docstring says how to install from it.\n"


def pins() -> list[str]:
    """The lines `name==version` of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "==" in line and line.split("==")[0] not in LEFT_OUT]


def report(requirements: list[str]) -> dict[str, Any]:
    """pip's installation report: what it would install, and each file's hash."""
    options = ["--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-"]
    command = [sys.executable, "-m", "pip", "install", *options, *requirements]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def hashes(found: dict[str, Any]) -> dict[str, str]:
    """Normalized `name==version` -> sha256 of the file in a report."""
    files = ((item["metadata"], item["download_info"]["archive_info"]) for item in found["install"])
    return {normalized(f"{about['name']}=={about['version']}"): file["hashes"]["sha256"] for about, file in files}


def normalized(pin: str) -> str:
    name, version = pin.split("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def locked() -> dict[str, set[str]]:
    """The lock as it is: pin -> hashes."""
    known: dict[str, set[str]] = defaultdict(set)
    text = LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""
    for entry in text.replace("\\\n", " ").splitlines():
        if "==" in entry:
            pin, *options = entry.split()
            known[pin] |= {option.removeprefix("--hash=sha256:") for option in options}
    return known


def write(new: dict[str, str]) -> None:
    """Add `new` hashes to the lock, and drop what is no longer pinned."""
    known = locked()
    for pin, sha256 in new.items():
        known[pin].add(sha256)
    entries = []
    for pin in sorted(map(normalized, pins())):
        options = [f"    --hash=sha256:{sha256}" for sha256 in sorted(known[pin])]
        entries.append(" \\\n".join([pin, *options]) + "\n")
    LOCK.write_text(HEADER + "".join(entries), encoding="utf-8")


if __name__ == "__main__":
    write(hashes(report(pins())))
