"""Artifacts: identity decides, one rename commits, nothing half-made is taken for whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold import artifacts, files
from twofold.artifacts import (
    Artifact,
    StageSpec,
    artifact_dir,
    digest,
    ensure,
    find,
    hash_by_tasks,
    open_artifact,
    partial_dir,
    verify,
)
from twofold.errors import UserError
from twofold.files import atomic_path, write_json
from twofold.tasks import TaskRunner

SPEC = StageSpec("pack", 1, {"seed": 1}, {"filter": "aa"})
ROOT = Path(__file__).resolve().parents[2]


def _build(out: Path, work: Path) -> dict[str, int]:
    (work / "log.txt").write_text("kept only while building")
    with atomic_path(out / "deep" / "tokens.ds") as path:
        path.write_bytes(b"1234")
    return {"tokens": 1}


def _make(run_dir: Path) -> Artifact:
    return ensure(run_dir, SPEC, _build)


def test_a_second_call_builds_nothing(tmp_path: Path) -> None:
    first = _make(tmp_path)

    def never(out: Path, work: Path) -> dict[str, int]:
        raise AssertionError("built twice")

    assert ensure(tmp_path, SPEC, never).manifest == first.manifest
    assert (tmp_path / "pack" / "deep" / "tokens.ds").read_bytes() == b"1234"
    assert [entry.path for entry in first.manifest.files] == ["deep/tokens.ds"]


def test_links_and_hidden_files_are_not_content(tmp_path: Path) -> None:
    """A log that is a link into somebody's cache may vanish without damaging what was built."""
    cached = tmp_path / "cache.log"
    cached.write_text("a log")

    def build(out: Path, work: Path) -> dict[str, int]:
        (out / "debug.log").symlink_to(cached)
        (out / ".lease").write_text("held")
        return _build(out, work)

    artifact = ensure(tmp_path, SPEC, build)
    assert [entry.path for entry in artifact.manifest.files] == ["deep/tokens.ds"]
    cached.unlink()
    verify(open_artifact(artifact.path))


LOGS = ("train.log", "logs/node01.rank-0.log", "wandb/run/files/config.yaml", "wandb-run-id")


def test_logs_and_what_wandb_writes_are_not_content(tmp_path: Path) -> None:
    def build(out: Path, work: Path) -> dict[str, int]:
        for name in LOGS:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text("a log")
        return _build(out, work)

    artifact = ensure(tmp_path, SPEC, build)
    assert [entry.path for entry in artifact.manifest.files] == ["deep/tokens.ds"]
    assert (artifact.path / "wandb/run/files/config.yaml").exists(), "they stay where they are"


def test_logs_that_an_older_manifest_lists_may_vanish(tmp_path: Path) -> None:
    artifact = _make(tmp_path)
    manifest = artifact.path / "manifest.json"
    written = json.loads(manifest.read_text())
    written["files"] += [{"path": name, "bytes": 5, "sha256": "0" * 64} for name in LOGS]
    manifest.write_text(json.dumps(written))
    verify(open_artifact(artifact.path))


@pytest.mark.parametrize(
    "other",
    [
        StageSpec("pack", 2, SPEC.config, SPEC.inputs),
        StageSpec("pack", 1, {"seed": 2}, SPEC.inputs),
        StageSpec("pack", 1, SPEC.config, {"filter": "bb"}),
        StageSpec("pick", 1, SPEC.config, SPEC.inputs),
    ],
)
def test_whatever_decides_the_content_is_part_of_the_identity(tmp_path: Path, other: StageSpec) -> None:
    first = _make(tmp_path)
    assert find(tmp_path, other) is None
    second = ensure(tmp_path, other, _build)
    assert second.identity != first.identity
    assert first.path.exists(), "another identity never overwrites"


def test_files_that_a_manifest_below_lists_are_not_read_again(tmp_path: Path) -> None:
    def build(out: Path, work: Path) -> dict[str, int]:
        folder = out / "checkpoints" / "step-1"
        folder.mkdir(parents=True)
        for name, text in {"listed": "1234", "grown": "12345", "other": "1"}.items():
            (folder / name).write_text(text)
        listed = [{"path": name, "bytes": 4, "sha256": "of the manifest"} for name in ("listed", "grown")]
        write_json(folder / "manifest.json", {"files": listed})
        (out / "foreign").mkdir()
        (out / "foreign" / "manifest.json").write_text("[1")
        return {}

    artifact = ensure(tmp_path, SPEC, build)
    hashes = {entry.path.rpartition("/")[2]: entry.sha256 for entry in artifact.manifest.files}
    assert hashes.pop("listed") == "of the manifest"
    assert all(len(value) == 64 for value in hashes.values())
    with pytest.raises(UserError, match="was altered"):
        verify(artifact)


def test_what_tasks_hashed_is_not_read_again_unless_it_changed(
    tmp_path: Path, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "HASHED_BY_TASKS_BYTES", 10)
    read: list[str] = []
    real = artifacts.sha256_of

    def noted(path: Path) -> str:
        read.append(path.name)
        return real(path)

    def build(out: Path, work: Path) -> dict[str, int]:
        for name in ("a", "b", "c"):
            (out / name).write_text(f"{name} of six bytes"[:6])
        hash_by_tasks(out, work, runner)
        assert read == ["a", "b", "c"]
        assert len(list((work / "hashes").iterdir())) == 2
        (out / "b").write_text("b twin")
        os.utime(out / "b", ns=(1, 1))
        return {}

    monkeypatch.setattr(artifacts, "sha256_of", noted)
    artifact = ensure(tmp_path, SPEC, build)
    assert read == ["a", "b", "c", "b"]
    verify(artifact)
    (artifact.path / "c").write_text("c twin")
    with pytest.raises(UserError, match="c: was altered"):
        verify(artifact)


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, memory = [tmp_path / "weights", tmp_path / "more"], tmp_path / "run" / ".hashes.json"
    for path in paths:
        path.write_text("one")
        os.utime(path, ns=(1, 1))
    first = files.remembered_sha256(paths, memory)
    assert first == [files.sha256_of(path) for path in paths]
    assert not memory.exists()  # no run folder, nothing is written
    memory.parent.mkdir()
    assert files.remembered_sha256(paths, memory) == first
    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256_of", lambda _: pytest.fail("was read again"))
        assert files.remembered_sha256(paths, memory) == first
    paths[0].write_text("two")  # of the same size
    assert files.remembered_sha256(paths, memory)[0] != first[0]
    paths[0].write_text("six")  # perhaps within the resolution of the clock
    assert files.remembered_sha256(paths, memory) == [files.sha256_of(path) for path in paths]


def test_going_back_reuses_the_former_artifact(tmp_path: Path) -> None:
    _make(tmp_path)
    ensure(tmp_path, StageSpec("pack", 2, {}, {}), _build)
    _make(tmp_path)
    assert (tmp_path / "pack").resolve() == artifact_dir(tmp_path, SPEC).resolve()


def test_a_failed_build_commits_nothing_and_is_continued(tmp_path: Path) -> None:
    def fails(out: Path, work: Path) -> dict[str, int]:
        (work / "done-00000").touch()
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        ensure(tmp_path, SPEC, fails)
    assert find(tmp_path, SPEC) is None
    assert not (tmp_path / "pack").exists()

    def continues(out: Path, work: Path) -> dict[str, int]:
        assert (work / "done-00000").exists()
        return _build(out, work)

    assert ensure(tmp_path, SPEC, continues).counts == {"tokens": 1}


def test_kill_at_any_moment_leaves_nothing_taken_for_whole(tmp_path: Path) -> None:
    """SIGKILL a real process at each of its file system calls in turn."""
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from tests.twofold.test_artifacts import _make
        calls, fatal = 0, int(sys.argv[2])
        def kill_at(name):
            original = getattr(os, name)
            def call(*args, **kwargs):
                global calls
                calls += 1
                if calls == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **kwargs)
            setattr(os, name, call)
        for name in ("replace", "fsync", "symlink", "mkdir", "rmdir", "unlink"):
            kill_at(name)
        _make(Path(sys.argv[1]))
    """)
    for fatal in range(1, 40):
        run_dir = tmp_path / str(fatal)
        run_dir.mkdir()
        code = subprocess.run(
            [sys.executable, "-c", script, str(run_dir), str(fatal)], cwd=ROOT, check=False
        ).returncode
        found = find(run_dir, SPEC)
        if found is not None:
            verify(found)
        assert ensure(run_dir, SPEC, _build).counts == {"tokens": 1}
        assert (run_dir / "pack" / "deep" / "tokens.ds").read_bytes() == b"1234"
        if code == 0:
            break
        assert code == -signal.SIGKILL
    else:
        raise AssertionError("the build never came to its end")
    assert fatal > 5, "the build was never killed midway"


@pytest.mark.parametrize("damage", ["missing", "cut", "manifest", "no manifest", "unknown field"])
def test_a_damaged_artifact_is_an_error_with_a_hint(tmp_path: Path, damage: str) -> None:
    path = _make(tmp_path).path
    if damage == "missing":
        (path / "deep" / "tokens.ds").unlink()
    elif damage == "cut":
        os.truncate(path / "deep" / "tokens.ds", 2)
    elif damage == "manifest":
        os.truncate(path / "manifest.json", 20)
    elif damage == "no manifest":
        (path / "manifest.json").unlink()
    else:
        write_json(path / "manifest.json", json.loads((path / "manifest.json").read_text()) | {"colour": "red"})
    with pytest.raises(UserError, match=r"Hint: "):
        _make(tmp_path)


def test_verify_finds_an_altered_byte(tmp_path: Path) -> None:
    artifact = _make(tmp_path)
    verify(artifact)
    (artifact.path / "deep" / "tokens.ds").write_bytes(b"1235")
    open_artifact(artifact.path)  # sizes agree: only reading every byte can tell
    with pytest.raises(UserError, match="was altered"):
        verify(artifact)


def test_the_partial_folder_is_named_by_identity() -> None:
    assert partial_dir(Path("r"), SPEC) != partial_dir(Path("r"), StageSpec("pack", 2, SPEC.config, SPEC.inputs))


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_digest_ignores_the_order_of_keys(config: dict[str, object]) -> None:
    assert digest(config) == digest(dict(reversed(list(config.items()))))
