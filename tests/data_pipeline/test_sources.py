"""Which files a source has, and how they are known again and cut."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile

from data_pipeline.readers import folders, formats, records, sources, storage
from twofold import files
from twofold.errors import UserError
from twofold.files import is_passing


def _touch(path: Path, size: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_folder_lists_matching_files_sorted(tmp_path, make_recipe):
    for name in ("b/2.jsonl.zst", "b/1.jsonl", "a.jsonl.gz", "note.txt", ".hidden.jsonl", ".git/x.jsonl", "UP.JSONL"):
        _touch(tmp_path / name)
    files = sources.list_files(make_recipe({"s": {"path": str(tmp_path)}}))["s"].files
    assert [file.relative for file in files] == ["UP.JSONL", "a.jsonl.gz", "b/1.jsonl", "b/2.jsonl.zst"]


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("jsonl", ["a.json", "a.json.gz", "a.jsonl.zstd", "a.ndjson", "a.JSONL.GZ", "a.ndjson.zst"]),
        ("warc", ["a.warc", "a.warc.gz", "a.warc.zst", "a.arc.gz", "CC-MAIN-1.warc.wet.gz", "A.WARC"]),
        ("parquet", ["a.parquet", "a.pq", "a.parq", "a.zstd.parquet"]),
        ("html", ["a.HTM", "a.html.gz"]),
        ("text", ["a.txt.zst", "a.py", "a.json"]),
    ],
)
def test_every_usual_name_of_a_format_is_read(tmp_path, make_recipe, form, names):
    for name in names:
        _touch(tmp_path / name)
    listing = sources.list_files(make_recipe({"s": {"path": str(tmp_path), "format": form}}))["s"]
    assert [file.relative for file in listing.files] == sorted(names)


def test_what_is_not_read_is_counted_with_its_reason(tmp_path, make_recipe):
    names = ("a.jsonl", "b.csv", "c.csv", "sub/d.bin", "README", ".hidden.jsonl", ".git/x.jsonl", ".git/y.jsonl")
    for name in names:
        _touch(tmp_path / name, 3)
    (tmp_path / "gone.jsonl").symlink_to("nowhere")
    (tmp_path / "self.jsonl").symlink_to("self.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    listing = sources.list_files(make_recipe({"s": {"path": str(tmp_path)}}))["s"]
    told = {reason: (tally.files, tally.bytes, tally.examples) for reason, tally in listing.passed_over.items()}
    assert told == {
        folders.HIDDEN: (2, 3, [".git", ".hidden.jsonl"]),
        folders.ENDING: (4, 12, ["README", "b.csv", "sub/d.bin"]),
        folders.DANGLING: (2, 0, ["gone.jsonl", "self.jsonl"]),
        folders.SPECIAL: (1, 0, ["pipe.jsonl"]),
    }
    assert listing.found == 1 + 9


def test_folders_are_walked_once_whatever_links_lead_to_them(tmp_path, make_recipe):
    _touch(tmp_path / "root/real/a.jsonl")
    _touch(tmp_path / "outside/b.jsonl")
    for name, target in {"loop": ".", "loop2": "..", "real/up": "..", "alias": "real", "out": "../outside"}.items():
        (tmp_path / "root" / name).symlink_to(target)
    listing = sources.list_files(make_recipe({"s": {"path": str(tmp_path / "root")}}))["s"]
    assert [file.relative for file in listing.files] == ["out/b.jsonl", "real/a.jsonl"]
    assert listing.passed_over[folders.WALKED].files == 5


def test_single_file_may_have_any_ending(tmp_path, make_recipe):
    _touch(tmp_path / "data.bin", 5)
    files = sources.list_files(make_recipe({"s": {"path": str(tmp_path / "data.bin")}}))["s"].files
    assert [(file.relative, file.bytes) for file in files] == [("data.bin", 5)]


def test_missing_and_empty_sources_are_named_together(tmp_path, make_recipe):
    (tmp_path / "empty").mkdir()
    recipe = make_recipe({"gone": {"path": str(tmp_path / "gone")}, "bare": {"path": str(tmp_path / "empty")}})
    with pytest.raises(UserError) as caught:
        sources.list_files(recipe)
    assert [problem.field for problem in caught.value.problems] == ["sources.gone.path", "sources.bare.path"]
    assert "does not exist" in str(caught.value)
    assert "has no jsonl file" in str(caught.value)


def test_an_empty_source_names_what_lies_there_instead(tmp_path, make_recipe):
    _touch(tmp_path / "data.csv")
    with pytest.raises(UserError, match=r"has no jsonl file \(but data\.csv\)"):
        sources.list_files(make_recipe({"s": {"path": str(tmp_path)}}))


def test_unreadable_file_is_refused_before_any_work(tmp_path, make_recipe, monkeypatch):
    _touch(tmp_path / "a.jsonl")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything, so permissions are faked
    with pytest.raises(UserError, match="cannot be read"):
        sources.list_files(make_recipe({"s": {"path": str(tmp_path)}}))


def test_unlistable_folder_is_refused(tmp_path, make_recipe, monkeypatch):
    def walk(top, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(top)))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(UserError, match="cannot be listed"):
        sources.list_files(make_recipe({"s": {"path": str(tmp_path)}}))


def test_fingerprint_follows_content_and_names_but_not_place(tmp_path, make_recipe):
    for root in ("one", "two"):
        _touch(tmp_path / root / "a.jsonl", 3)
    recipes = [make_recipe({"s": {"path": str(tmp_path / root)}}) for root in ("one", "two")]
    first, second = (sources.fingerprints(recipe)["s"] for recipe in recipes)
    assert first == second
    (tmp_path / "two" / "a.jsonl").write_bytes(b"yyy")
    assert sources.fingerprints(recipes[1])["s"] != first
    (tmp_path / "one" / "a.jsonl").rename(tmp_path / "one" / "b.jsonl")
    assert sources.fingerprints(recipes[0])["s"] != first


def test_stat_fingerprint_follows_modification_time(tmp_path, make_recipe):
    _touch(tmp_path / "a.jsonl")
    recipe = make_recipe({"s": {"path": str(tmp_path)}}, extract={"fingerprint": "stat"})
    before = sources.fingerprints(recipe)
    os.utime(tmp_path / "a.jsonl", ns=(1, 1))
    assert sources.fingerprints(recipe) != before


def test_fingerprint_of_a_file_that_vanishes(tmp_path, make_recipe, monkeypatch):
    _touch(tmp_path / "a.jsonl")

    def vanished(location):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(files, "sha256_of", vanished)
    with pytest.raises(UserError, match="No such file"):
        sources.fingerprints(make_recipe({"s": {"path": str(tmp_path)}}))


def test_contents_are_read_again_only_if_a_file_changed(tmp_path, make_recipe, monkeypatch):
    _touch(tmp_path / "in" / "a.jsonl", 3)
    os.utime(tmp_path / "in" / "a.jsonl", ns=(1, 1))
    recipe = make_recipe({"s": {"path": str(tmp_path / "in")}}).model_copy(update={"run_dir": str(tmp_path / "run")})
    (tmp_path / "run").mkdir()
    before = sources.fingerprints(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256_of", lambda path: pytest.fail("was read again"))
        assert sources.fingerprints(recipe) == before
    (tmp_path / "in" / "a.jsonl").write_bytes(b"yyy")
    assert sources.fingerprints(recipe) != before


def test_plan_cuts_whole_files_and_keeps_capped_sources_in_one_task(tmp_path, make_recipe):
    for number in range(5):
        _touch(tmp_path / f"{number}.jsonl", 40)
    source = {"path": str(tmp_path)}
    recipe = make_recipe({"s": source, "capped": {**source, "max_bytes": 10}}, extract={"task_bytes": 100})
    shares = sources.plan(recipe, sources.list_files(recipe))
    assert [(share.source, share.number, len(share.files)) for share in shares] == [
        ("s", 0, 2),
        ("s", 1, 2),
        ("s", 2, 1),
        ("capped", 0, 5),
    ]


# --- remote addresses --------------------------------------------------------------------------


@pytest.fixture
def bucket():
    """A folder of fsspec's in-memory file system, empty."""
    system = fsspec.filesystem("memory")
    system.rm("/bucket", recursive=True) if system.exists("/bucket") else None
    yield system
    system.rm("/bucket", recursive=True) if system.exists("/bucket") else None


def test_a_remote_folder_is_listed_like_a_local_one(bucket, make_recipe):
    for name in ("b/2.jsonl.zst", "b/1.jsonl", "a.jsonl.gz", "note.txt", ".hidden.jsonl", ".git/x.jsonl", "UP.JSONL"):
        bucket.pipe(f"/bucket/{name}", b"xx")
    files = sources.list_files(make_recipe({"s": {"path": "memory://bucket"}}))["s"].files
    assert [file.relative for file in files] == ["UP.JSONL", "a.jsonl.gz", "b/1.jsonl", "b/2.jsonl.zst"]
    assert {file.bytes for file in files} == {2}
    assert files[0].location == "memory:///bucket/UP.JSONL"


def test_a_single_remote_file_may_have_any_ending(bucket, make_recipe):
    bucket.pipe("/bucket/data.bin", b"12345")
    files = sources.list_files(make_recipe({"s": {"path": "memory://bucket/data.bin"}}))["s"].files
    assert [(file.relative, file.bytes) for file in files] == [("data.bin", 5)]


def test_missing_empty_and_unknown_remote_sources_are_named_together(bucket, make_recipe):
    bucket.pipe("/bucket/note.bin", b"x")
    recipe = make_recipe(
        {"gone": {"path": "memory://gone"}, "bare": {"path": "memory://bucket"}, "odd": {"path": "nosuch://bucket/x"}}
    )
    with pytest.raises(UserError) as caught:
        sources.list_files(recipe)
    assert [problem.field for problem in caught.value.problems] == [
        f"sources.{n}.path" for n in ("gone", "bare", "odd")
    ]
    told = [problem.problem for problem in caught.value.problems]
    assert told[0] == "does not exist or is empty"
    assert told[1] == "has no jsonl file (but note.bin)"
    assert "Protocol not known: nosuch" in told[2]


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("s3://bucket/x", "pip install s3fs"),
        ("gs://bucket/x", "pip install gcsfs"),
        ("https://example.com/x", "pip install fsspec[http]"),
    ],
)
def test_a_protocol_whose_package_is_missing_names_the_hint(make_recipe, monkeypatch, address, hint):
    def missing(path):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UserError) as caught:
        sources.list_files(make_recipe({"s": {"path": address}}))
    assert caught.value.problems[0].hint == hint


def test_a_file_address_is_a_local_path(tmp_path, make_recipe):
    _touch(tmp_path / "a.jsonl")
    (file,) = sources.list_files(make_recipe({"s": {"path": f"file://{tmp_path}"}}))["s"].files
    assert file.location == tmp_path / "a.jsonl"


def test_a_copy_on_a_remote_file_system_has_the_same_fingerprint(tmp_path, bucket, make_recipe):
    (tmp_path / "a.jsonl").write_bytes(b"xyz")
    bucket.pipe("/bucket/a.jsonl", b"xyz")
    recipe = make_recipe({"local": {"path": str(tmp_path)}, "remote": {"path": "memory://bucket"}})
    marks = sources.fingerprints(recipe)
    assert marks["local"] == marks["remote"]
    bucket.pipe("/bucket/a.jsonl", b"xyZ")
    assert sources.fingerprints(recipe)["remote"] != marks["remote"]


def test_stat_fingerprint_of_a_remote_file_follows_its_mark(bucket, make_recipe, monkeypatch):
    bucket.pipe("/bucket/a.jsonl", b"x")
    recipe = make_recipe({"s": {"path": "memory://bucket"}}, extract={"fingerprint": "stat"})
    before = sources.fingerprints(recipe)
    assert sources.fingerprints(recipe) == before
    bucket.pipe("/bucket/a.jsonl", b"y")
    assert sources.fingerprints(recipe) != before
    monkeypatch.setattr(type(bucket), "info", lambda self, path: {"name": path, "size": 1, "type": "file"})
    with pytest.raises(UserError, match="neither entity tag nor time"):
        sources.fingerprints(recipe)


def test_exists_answers_for_local_and_remote_and_never_raises(tmp_path, bucket, make_recipe):
    bucket.pipe("/bucket/a.jsonl", b"x")
    paths = {
        "here": str(tmp_path),
        "gone": str(tmp_path / "gone"),
        "far": "memory://bucket",
        "empty": "memory://none",
        "odd": "nosuch://x",
    }
    recipe = make_recipe({name: {"path": path} for name, path in paths.items()})
    found = {name: sources.exists(source) for name, source in recipe.sources.items()}
    assert found == {"here": True, "gone": False, "far": True, "empty": False, "odd": False}


def test_a_remote_read_that_fails_is_an_os_error_that_survives_pickling(bucket, monkeypatch):
    bucket.pipe("/bucket/a.jsonl", b"x" * 10)
    with storage.open_binary("memory://bucket/a.jsonl") as stream:
        assert (stream.read(4), stream.seek(2), stream.tell(), stream.read()) == (b"xxxx", 2, 2, b"x" * 8)

    def fail(self, path, mode):
        raise RuntimeError("throttled")

    monkeypatch.setattr(type(bucket), "open", fail)
    with pytest.raises(storage.Unreachable, match="RuntimeError: throttled") as caught:
        storage.open_binary("memory://bucket/a.jsonl")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.problem, copy.hint, copy.errno) == (caught.value.problem, caught.value.hint, errno.EIO)


@pytest.mark.parametrize("error", [RuntimeError("throttled"), TimeoutError(), ConnectionResetError("by peer")])
def test_a_connection_that_is_lost_while_a_file_is_read_is_no_damage(bucket, monkeypatch, error):
    """The task ends, and is tried again; what is behind in the file is not missing from the corpus."""
    bucket.pipe("/bucket/a.jsonl", b'{"text": "one"}\n' * 200_000)
    monkeypatch.setattr(storage, "_BUFFER_BYTES", 1000)
    read = MemoryFile.read

    def fail(self, size=-1):
        if self.tell() > 100_000:
            raise error
        return read(self, size)

    monkeypatch.setattr(MemoryFile, "read", fail)
    with pytest.raises(storage.Unreachable) as caught:
        list(formats.account("memory://bucket/a.jsonl", "jsonl", records.Settings(10**6)))
    assert is_passing(caught.value)
