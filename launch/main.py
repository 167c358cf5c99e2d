"""The program `twofold`: makes sure that every package is ours, then hands over to launch/cli.py.

Contract: standard library only, since what it guards against is that our other modules are not the ones imported:
package names such as `configs` are generic, and PYTHONPATH may put a namesake before ours.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("twofold", "configs", "data_pipeline", "tokenizer", "pretrain", "launch")


def namesake() -> tuple[str, str] | None:
    """The first of our packages that would be imported from elsewhere, and from where; None if all are ours."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        places = [spec.origin] if spec and spec.origin else list((spec and spec.submodule_search_locations) or ())
        found = Path(places[0] or ".").resolve() if places else Path("nowhere")
        if ROOT not in found.parents or found.relative_to(ROOT).parts[0] != name:
            return name, str(found)
    return None


def main() -> int:
    """Run a command; return its exit code."""
    try:
        if found := namesake():
            hint = "remove that folder from PYTHONPATH, or uninstall the package that shadows ours"
            print(
                f"error: package {found[0]} = {found[1]!r}: does not come from {ROOT}. Hint: {hint}.", file=sys.stderr
            )
            return 2
        from launch.cli import main as run

        return run()
    except KeyboardInterrupt:  # before launch.cli can say what is kept
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
