"""Fixtures that every package's tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A deadline fails on a busy machine, not on a wrong program, so no profile has one.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if "CI" in os.environ else "dev"))

# Under nohup or in a shell's background, hang-ups and interrupts are ignored, and child processes inherit that.
for _number, _default in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _default)

ROOT = Path(__file__).resolve().parent.parent
_LONG = ("cluster", "slurm", "e2e", "slow")
"""Marks of files that start first."""
_SHARED_RUNS = {"packed_run", "finished_run", "one_host", "wheel"}
"""Fixtures that run whole stages or build a wheel: the tests that use them are `slow`."""


@pytest.hookimpl(tryfirst=True)  # before -m selects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start clusters first, then those with real trainings: nothing long is left for one process alone."""
    marks: dict[Path, set[str]] = {}
    for item in items:
        if _SHARED_RUNS & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
        marks.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    items.sort(key=lambda item: next((n for n, name in enumerate(_LONG) if name in marks[item.path]), len(_LONG)))


class InProcessRunner:
    """The smallest TaskRunner: one task after another, in this process."""

    def run(self, label: str, task, n_tasks: int, log_dir: Path) -> None:
        for rank in range(n_tasks):
            task(rank, n_tasks)


@pytest.fixture
def runner() -> InProcessRunner:
    return InProcessRunner()


@pytest.fixture(scope="session")
def corpus_dir() -> Path:
    """The development corpus; not shipped, so tests over it skip where it is absent."""
    path = Path(os.environ.get("TWOFOLD_CORPUS", ROOT.parent / "shared" / "corpus"))
    if not path.is_dir():
        pytest.skip("the development corpus is not here (set TWOFOLD_CORPUS)")
    return path
