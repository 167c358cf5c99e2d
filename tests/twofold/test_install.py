"""An installed wheel works from any folder: it holds recipes, templates and the sample corpus."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

SETUPTOOLS = 77
"""The oldest major version that reads pyproject.toml's license field."""
_IGNORED = shutil.ignore_patterns(".git", ".venv", "runs", "build", "__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the checkout, where the backend is new enough to build from it."""
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if int(version.split(".")[0]) < SETUPTOOLS:
        pytest.skip(f"building a wheel needs setuptools {SETUPTOOLS} or newer (pip install -U setuptools)")
    folder = tmp_path_factory.mktemp("source") / "twofold"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=_IGNORED)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    words = ["wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(out), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`twofold` in a fresh environment that takes all other packages from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    words = ["--python", str(python), "install", "--no-deps", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    paths = [path for path in sys.path if path.endswith("site-packages")] or [sysconfig.get_path("purelib")]
    installed = next(folder.glob("lib/python*/site-packages"))
    (installed / "dependencies.pth").write_text("\n".join(paths) + "\n")
    return folder / "bin" / "twofold"


def run(program: Path, folder: Path, *words: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([program, *words], cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_recipes_templates_and_the_sample(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    corpus = [path for path in (ROOT / "examples").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {f"configs/{path.relative_to(ROOT).as_posix()}" for path in corpus}
    wanted |= {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "launch/reports/templates").iterdir()}
    assert wanted <= names


@pytest.mark.slow
def test_the_source_distribution_holds_all_that_a_checkout_has(source: Path, tmp_path: Path) -> None:
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    hidden = (".git", ".pre-commit", ".dockerignore")
    wanted = {name for name in tracked.splitlines() if not name.startswith(hidden) and name != "configs/examples"}
    assert wanted <= held, sorted(wanted - held)


def test_an_installed_program_validates_and_reads_the_sample_from_any_folder(program: Path, tmp_path: Path) -> None:
    said = run(program, tmp_path, "validate", "smoke")
    assert "8 of 8 sources are on this machine" in said
    assert "1 of 1 benchmarks are on this machine" in said
    run(program, tmp_path, "run", "smoke", "--until", "extract", "data.executor.workers=1")
    assert (tmp_path / "runs" / "smoke" / "extract" / "manifest.json").exists()
