"""Shards hold every kept token with its document; what does not fit together is named before training begins."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.failing_calls import Once, failing_calls
from tests.conftest import InProcessRunner
from tests.tokenizer.conftest import ENGLISH, KOREAN, VOCAB_SIZE, small_recipe, write_documents
from tokenizer import shards
from tokenizer.encoder import Encoder
from tokenizer.stages import tokenize
from tokenizer.texts import utf8_of
from twofold import files
from twofold.artifacts import Artifact, StageSpec, ensure
from twofold.errors import UserError
from twofold.files import sha256_of
from twofold.special_ids import EOS_ID


def packed_from(documents: Artifact, tokenizer: Artifact, run_dir: Path) -> Artifact:
    recipe = small_recipe()
    return ensure(
        run_dir,
        StageSpec("shards", tokenize.CODE_VERSION, tokenize.config(recipe), {}),
        lambda out, work: tokenize.build(recipe, documents, tokenizer, out, work, InProcessRunner()),
    )


@pytest.fixture
def packed(documents: Artifact, tokenizer: Artifact, tmp_path: Path) -> Artifact:
    return packed_from(documents, tokenizer, tmp_path)


def test_every_document_is_there_in_order_with_its_eos(packed: Artifact, tokenizer: Artifact) -> None:
    encoder = Encoder(tokenizer.path)
    for source, texts, language in (("ko-text", KOREAN * 3, "ko"), ("en-text", ENGLISH * 3, "en")):
        path = packed.path / "train" / source / "00000.ds"
        tokens, ends = shards.open_tokens(path), shards.open_document_ends(path)
        start = 0
        for text, end in zip(texts, ends.tolist(), strict=True):
            assert tokens[start:end].tolist() == [*encoder.encode([text])[0], EOS_ID]
            start = end
        assert start == len(tokens)
        assert shards.read_documents(path) == {
            "id": [f"{source}/{number}" for number in range(len(texts))],
            "source": [source] * len(texts),
            "language": [language] * len(texts),
            "bytes": [len(text.encode()) for text in texts],
        }


def test_the_index_adds_up(packed: Artifact, tokenizer: Artifact) -> None:
    index = shards.read_index(packed.path, tokenizer.identity)
    assert (index.vocab_size, index.tokenizer_identity) == (VOCAB_SIZE, tokenizer.identity)
    assert list(index.splits) == ["train", "validation"]
    for split, sources in index.splits.items():
        for name, entry in sources.items():
            tokens = np.concatenate([shards.open_tokens(packed.path / shard.path) for shard in entry.shards])
            assert entry.tokens == sum(shard.tokens for shard in entry.shards) == len(tokens)
            assert max(shard.largest_id for shard in entry.shards) == tokens.max()
            totals = {"documents": entry.documents, "tokens": entry.tokens, "bytes": entry.bytes}
            assert packed.counts[split][name] == totals
            assert index.tokens(split)[name] == entry.tokens
    train = index.splits["train"]["ko-text"]
    assert (train.bytes, train.documents) == (sum(len(text.encode()) for text in KOREAN * 3), len(KOREAN) * 3)


@pytest.mark.parametrize(("rows", "text_bytes"), [(1, 8_000_000), (256, 1), (5, 200)])
def test_batches_do_not_show_in_the_bytes(
    packed: Artifact,
    documents: Artifact,
    tokenizer: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    text_bytes: int,
) -> None:
    monkeypatch.setattr(tokenize, "_ROWS", rows)
    monkeypatch.setattr(tokenize, "_TEXT_BYTES", text_bytes)
    again = packed_from(documents, tokenizer, tmp_path / "again")
    assert len(again.manifest.files) == len(packed.manifest.files) > 10
    for entry in packed.manifest.files:
        if not entry.path.endswith(".parquet"):
            assert (again.path / entry.path).read_bytes() == (packed.path / entry.path).read_bytes(), entry.path
    path = Path("train/ko-text/00000.ds")
    assert shards.read_documents(again.path / path) == shards.read_documents(packed.path / path)


def test_packing_again_gives_the_same_bytes(
    packed: Artifact, documents: Artifact, tokenizer: Artifact, tmp_path: Path
) -> None:
    assert packed_from(documents, tokenizer, tmp_path / "again").manifest.files == packed.manifest.files


def test_batches_are_bounded_by_rows_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "_ROWS", 4)
    monkeypatch.setattr(tokenize, "_TEXT_BYTES", 100)
    texts = ["a" * size for size in (60, 60, 10, 300, 0, 1, 1, 1, 1, 1)]
    write_documents(tmp_path, "train", "law", texts, "en")
    batches = list(tokenize._batches(tmp_path / "documents" / "train" / "law" / "00000.parquet"))
    found = [batch["text"].to_pylist() for batch in batches]
    assert [text for batch in found for text in batch] == texts
    assert all(len(batch) <= 4 and sum(map(len, batch[:-1])) < 200 for batch in found)
    assert len(batches) > 3


def test_datatrove_reads_our_shards(packed: Artifact) -> None:
    from datatrove.utils.dataset import DatatroveFileDataset

    path = packed.path / "train" / "en-text" / "00000.ds"
    tokens, ends = shards.open_tokens(path), shards.open_document_ends(path).tolist()
    theirs = DatatroveFileDataset(str(path), seq_len=15, token_size=4, return_positions=True)
    starts = [0, *ends]
    expected = [place - max(start for start in starts if start <= place) for place in range(len(tokens))]
    assert len(theirs) == len(tokens) // 16 > 10
    for number in range(len(theirs)):
        window = slice(number * 16, number * 16 + 16)
        assert theirs[number]["input_ids"].tolist() == tokens[window].tolist()
        positions = theirs[number]["positions"].tolist()
        # Theirs count from the window's start until a document begins in it.
        begin = next((place for place, position in enumerate(expected[window]) if position == 0), 16)
        assert positions[begin:] == expected[window][begin:]
        assert positions[:begin] == list(range(begin))


def test_datatroves_tokenizer_writes_the_same_files(packed: Artifact, tokenizer: Artifact, tmp_path: Path) -> None:
    from datatrove.data import Document
    from datatrove.pipeline.tokens.tokenizer import DocumentTokenizer

    step = DocumentTokenizer(
        str(tmp_path / "theirs"),
        tokenizer_name_or_path=str(tokenizer.path / "tokenizer.json"),
        eos_token="<|eos|>",
        shuffle_documents=False,
    )
    step.run([Document(text=text, id=str(number)) for number, text in enumerate(KOREAN * 3)])
    for ending in ("", ".index"):
        theirs = (tmp_path / "theirs" / f"00000_unshuffled.ds{ending}").read_bytes()
        ours = (packed.path / "train" / "ko-text" / f"00000.ds{ending}").read_bytes()
        tokens = (np.dtype("<u2"), shards.TOKEN_DTYPE) if not ending else (shards.END_DTYPE,) * 2
        assert np.frombuffer(theirs, tokens[0]).tolist() == np.frombuffer(ours, tokens[1]).tolist()


@pytest.mark.parametrize("ending", ["", ".index"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_shard_is_named(packed: Artifact, ending: str, damage: str) -> None:
    path = packed.path / "train" / "ko-text" / f"00000.ds{ending}"
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, 8)
    problem = "is missing" if damage == "missing" else "has 8 bytes, and the index says"
    with pytest.raises(UserError, match=f"00000.ds{ending}: {problem}.*Hint: restore it, or remove the folder"):
        shards.check_files(shards.read_index(packed.path))


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOMEM, errno.EMFILE])
def test_a_file_system_that_fails_is_no_damage(packed: Artifact, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any of the calls that open shards fails: once, nothing is lost; for good, the system's own error is raised."""
    monkeypatch.setattr(files, "_FIRST_WAIT_S", 0.0)

    def read() -> int:
        index = shards.read_index(packed.path)
        shards.check_files(index)
        paths = [packed.path / shard.path for entry in index.splits["train"].values() for shard in entry.shards]
        return sum(int(shards.open_tokens(path).sum()) + len(shards.open_document_ends(path)) for path in paths)

    whole, none = read(), Once(number, range(0))
    with failing_calls(packed.path, none):
        assert read() == whole
    for call in range(1, none.seen + 1):
        with failing_calls(packed.path, Once(number, range(call, call + 3))):
            assert read() == whole
    monkeypatch.setattr(files, "_PATIENCE_S", -1.0)
    raised = 0
    for call in range(1, none.seen + 1):
        with failing_calls(packed.path, Once(number, range(call, 10**6))):
            try:
                assert read() == whole  # pathlib's `resolve` makes a call whose failure it does not mind
            except OSError as error:
                raised += error.errno == number
    assert raised > none.seen // 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"token_dtype": "uint16"}', '{"token_dtype": "uint32", "splits": 3}', "\x80"]
)
def test_a_damaged_index_is_named(packed: Artifact, text: str) -> None:
    (packed.path / "index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"index.json: cannot be read.*Hint: restore it, or remove the folder"):
        shards.read_index(packed.path)


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"index.json: cannot be read"):
        shards.read_index(tmp_path)


def test_ids_beyond_the_vocabulary_are_refused(packed: Artifact) -> None:
    index = json.loads((packed.path / "index.json").read_text())
    largest = index["splits"]["train"]["en-text"]["shards"][0]["largest_id"]
    index["vocab_size"] = largest
    (packed.path / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=f"00000.ds: holds the id [0-9]+, beyond the vocabulary of {largest}"):
        shards.read_index(packed.path)


def test_shards_of_another_tokenizer_are_refused(packed: Artifact) -> None:
    with pytest.raises(UserError, match=r"index.json = .*: was made with another tokenizer than 0123"):
        shards.read_index(packed.path, tokenizer_identity="0123")


def test_a_shard_of_odd_size_or_absent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ds").write_bytes(b"12345")
    with pytest.raises(UserError, match="has 5 bytes, not a multiple of 4"):
        shards.open_tokens(tmp_path / "a.ds")
    with pytest.raises(UserError, match="is missing"):
        shards.open_tokens(tmp_path / "b.ds")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells how memory is mapped")
@pytest.mark.parametrize("scattered", [False, True])
def test_tokens_that_are_read_here_and_there_are_not_read_ahead(tmp_path: Path, scattered: bool) -> None:
    path = tmp_path / "a.ds"
    np.arange(5_000, dtype=np.uint32).tofile(path)
    tokens = shards.open_tokens(path, scattered)
    assert tokens.tolist() == list(range(5_000))
    assert not tokens.flags.writeable
    mapped = Path("/proc/self/smaps").read_text().split(str(path), 1)[1].split("VmFlags:", 1)[1].splitlines()[0]
    assert ("rr" in mapped.split()) == scattered


@pytest.mark.parametrize("content", [None, b"", b"no parquet at all"])
def test_a_damaged_side_index_is_named(packed: Artifact, content: bytes | None) -> None:
    path = packed.path / "train" / "ko-text" / "00000.ds"
    side = path.with_name("00000.ds.documents.parquet")
    side.unlink()
    if content is not None:
        side.write_bytes(content)
    with pytest.raises(UserError, match=r"00000.ds.documents.parquet: cannot be read"):
        shards.read_documents(path)


def test_a_shard_without_documents_is_empty(tmp_path: Path) -> None:
    with shards.ShardWriter(tmp_path, "train/none/00000.ds") as writer:
        pass
    assert writer.shard() == shards.Shard("train/none/00000.ds", tokens=0, documents=0, bytes=0, largest_id=-1)
    path = tmp_path / "train/none/00000.ds"
    assert len(shards.open_tokens(path)) == len(shards.open_document_ends(path)) == 0
    assert shards.read_documents(path)["id"] == []


def test_a_failed_shard_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with shards.ShardWriter(tmp_path, "a.ds") as writer:
            writer.add(
                np.array([5, 2]), np.array([2]), {"id": ["a"], "source": ["s"], "language": ["ko"], "bytes": [3]}
            )
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(pq, "ParquetWriter", refuse)
    with pytest.raises(RuntimeError):
        shards.ShardWriter(tmp_path, "a.ds").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_every_shard_is_in_the_manifest_with_its_hash_and_in_the_index_with_its_counts(packed: Artifact) -> None:
    hashes = {entry.path: entry.sha256 for entry in packed.manifest.files}
    index = shards.read_index(packed.path)
    listed = [shard for sources in index.splits.values() for entry in sources.values() for shard in entry.shards]
    assert sorted(shard.path for shard in listed) == sorted(path for path in hashes if path.endswith(".ds"))
    for shard in listed:
        path = packed.path / shard.path
        assert hashes[shard.path] == sha256_of(path)
        assert shard.tokens == len(shards.open_tokens(path))
        assert shard.bytes == sum(shards.read_documents(path)["bytes"])
        assert shard.documents == len(shards.open_document_ends(path))


@pytest.mark.parametrize("texts", [pa.array(["fine", None]), b"\xff\xfe", "\ud800".encode("utf-8", "surrogatepass")])
def test_what_is_no_text_is_refused(tmp_path: Path, texts: pa.Array | bytes) -> None:
    if isinstance(texts, bytes):
        texts = pa.array([b"fine", texts]).view(pa.string())
    columns = {name: ["x", "y"] for name in ("id", "source", "language")}
    pq.write_table(pa.table({**columns, "text": texts}), tmp_path / "bad.parquet")
    with pytest.raises(UserError, match=r"bad.parquet: is not text \(rows 0 to 1: .*run the stage write again"):
        list(tokenize._batches(tmp_path / "bad.parquet"))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_bytes_of_texts_are_taken_where_they_lie(kind: pa.DataType) -> None:
    texts = pa.array(["skipped", "가a", "", "끝", "skipped"], kind).slice(1, 3)
    data, bounds = utf8_of(texts)
    ends = bounds[1:]
    assert (data.tobytes(), ends.tolist()) == ("가a끝".encode(), [4, 4, 7])
    assert utf8_of(pa.array(["", ""], kind))[1].tolist() == [0, 0, 0]


def test_shards_that_differ_from_the_record_are_not_committed(
    documents: Artifact, tokenizer: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: Encoder, text: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, id_ends = encode(self, text, ends)
        return np.where(ids == ids[0], ids[1], ids), id_ends

    encode = Encoder.encode_utf8
    monkeypatch.setattr(Encoder, "encode_utf8", wrong)
    with pytest.raises(AssertionError, match=r"00000.ds: token 0 and on are not what tokenizer.json says"):
        packed_from(documents, tokenizer, tmp_path)
    assert not list((tmp_path / "artifacts").glob("shards-*[0-9a-f]"))


def test_nothing_kept_is_refused(tokenizer: Artifact, tmp_path: Path) -> None:
    empty = ensure(tmp_path, StageSpec("write", 1, {}, {}), lambda out, work: {})
    with pytest.raises(UserError, match="keeps no document to train on"):
        packed_from(empty, tokenizer, tmp_path)


def test_a_source_without_documents_is_left_out(tokenizer: Artifact, tmp_path: Path) -> None:
    def build(out: Path, work: Path) -> dict[str, int]:
        write_documents(out, "train", "law", [], "ko")
        write_documents(out, "train", "ko-text", KOREAN, "ko")
        return {}

    made = packed_from(ensure(tmp_path, StageSpec("write", 1, {}, {}), build), tokenizer, tmp_path)
    index = shards.read_index(made.path)
    assert list(index.splits["train"]) == ["ko-text"]
    assert index.splits["validation"] == {}


def test_ends_are_64_bit_and_cumulative_over_batches(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {"id": ["a", "b"], "source": ["s", "s"], "language": ["ko", "en"], "bytes": [3, 4]}
    with shards.ShardWriter(tmp_path, "a.ds") as writer:
        writer.add(np.array([5, 2, 6, 9, 2]), np.array([2, 5]), rows)
        writer.add(np.array([8, 2]), np.array([2]), {name: column[:1] for name, column in rows.items()})
    ends = shards.open_document_ends(tmp_path / "a.ds")
    assert ends.dtype == np.uint64
    assert ends.tolist() == [2, 5, 7]
    assert writer.shard() == shards.Shard("a.ds", tokens=7, documents=3, bytes=10, largest_id=9)


def test_the_task_travels_to_other_processes(tmp_path: Path) -> None:
    task = tokenize._Tokenize(tmp_path, ("train/law/00000",), tmp_path, tmp_path, tmp_path)
    assert pickle.loads(pickle.dumps(task)) == task


def test_a_task_run_again_after_a_kill_writes_the_same(
    packed: Artifact, documents: Artifact, tokenizer: Artifact, tmp_path: Path
) -> None:
    """Half-written files of the killed try lie beside; a shard already there is replaced by its equal."""
    out = tmp_path / "again"
    shutil.copytree(packed.path / "train" / "ko-text", out / "train" / "ko-text")
    (out / "train" / "ko-text" / "00000.ds").write_bytes(b"half")
    tokenize._Tokenize(documents.path / "documents", ("train/ko-text/00000",), tokenizer.path, out, tmp_path / "done")(
        0, 1
    )
    for path in (packed.path / "train" / "ko-text").iterdir():
        assert (out / "train" / "ko-text" / path.name).read_bytes() == path.read_bytes(), path.name
