"""Labelled texts: distinct, split by hash, bounded, with every refusal."""

from __future__ import annotations

import gzip

import pytest

from configs.data_schema import Classifier
from data_pipeline.classification import labelled
from twofold.errors import UserError

LABELS = ("good", "bad")
FIELD = "data.classifiers.quality.train"


def _records(count, labels=LABELS, **more):
    return [{"text": f"{label} text {number}", "label": label, **more} for number in range(count) for label in labels]


@pytest.fixture
def read(tmp_path, write_jsonl):
    """`read(records by file, known=labels, train=entries, seed=…, **settings)`."""

    def run(files, known=LABELS, train=None, seed=7, **settings):
        paths = [str(write_jsonl(tmp_path / f"{name}.jsonl", records)) for name, records in files.items()]
        chosen = Classifier(train=tuple(train or paths), **settings)
        return labelled.read(labelled.entries(chosen, known, FIELD), chosen, known, seed, FIELD)

    return run


def _texts(items):
    return {(item.text, item.label) for item in items}


def test_parts_are_disjoint_whole_and_of_the_asked_sizes(read):
    data = read({"a": _records(100)})
    sizes = {part: len(items) for part, items in data.parts.items()}
    assert sizes == {"training": 144, "calibration": 16, "test": 40}
    assert len(set().union(*map(_texts, data.parts.values()))) == 200


def test_order_of_files_and_records_does_not_matter(read):
    records = _records(60)
    whole = read({"a": records})
    cut = read({"b": records[40:][::-1], "c": records[:40]})
    assert {part: _texts(items) for part, items in whole.parts.items()} == {
        part: _texts(items) for part, items in cut.parts.items()
    }
    assert [item.text for item in whole.parts["training"]] == [item.text for item in cut.parts["training"]]
    other = read({"a": records}, seed=8)
    assert _texts(other.parts["test"]) != _texts(whole.parts["test"])


def test_what_a_model_reads_alike_never_straddles_the_parts(read):
    shouted = [{**record, "text": f"  {record['text'].upper()}\n"} for record in _records(50)]
    data = read({"a": _records(50), "b": shouted})
    assert sum(map(len, data.parts.values())) == 100
    assert data.left_out["repeated"] == 100


def test_texts_with_two_labels_are_left_out(read):
    data = read({"a": [*_records(30), {"text": "torn", "label": "good"}, {"text": "torn", "label": "bad"}]})
    assert data.left_out == {"other_label": 0, "repeated": 1, "two_labels": 1, "over_limit": 0}
    assert not any(item.text == "torn" for items in data.parts.values() for item in items)


def test_labels_are_mapped_and_others_counted(read):
    records = [*_records(30, ("high", "0")), {"text": "x", "label": "unsure"}]
    for record in records:
        record["grade"] = int(record["label"]) if record["label"] == "0" else record["label"]
        del record["label"]
    data = read({"a": records}, labels={"high": "good", "0": "bad"}, label_field="grade")
    assert {item.label for item in data.parts["training"]} == {"good", "bad"}
    assert data.left_out["other_label"] == 1


def test_a_folders_name_can_be_the_label(read, tmp_path, write_jsonl):
    for number in range(25):
        (tmp_path / "code" / "deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / "code" / "deep" / f"{number}.py").write_text(f"def f{number}(): pass", encoding="utf-8")
    write_jsonl(tmp_path / "law" / "0.jsonl", [f"Article {number}" for number in range(20)])
    packed = gzip.compress(b"".join(b'{"text": "Section %d"}\n' % number for number in range(20)))
    (tmp_path / "law" / "1.jsonl.gz").write_bytes(packed)
    (tmp_path / "law" / ".hidden.jsonl").write_text("no JSON", encoding="utf-8")
    train = [f"code={tmp_path / 'code'}", f"law={tmp_path / 'law'}"]
    data = read({}, known=("general", "law", "code"), train=train)
    counted = dict.fromkeys(("code", "law"), 0)
    for items in data.parts.values():
        for item in items:
            counted[item.label] += 1
    assert counted == {"code": 25, "law": 40}
    assert data.records == {0: 25, 1: 40}


def test_at_most_so_many_of_an_entry_and_a_label(read):
    data = read({"a": _records(200), "b": _records(30)}, most_per_entry=50)
    by_entry = [item.entry for items in data.parts.values() for item in items]
    assert by_entry.count(0) == 100
    assert data.left_out["over_limit"] == 300
    assert {item.entry for item in data.parts["test"]} == {0}, "b repeats a"


def test_a_capped_entry_does_not_crowd_the_others_out_of_the_test_part(read):
    """The cap keeps low hashes: a cut along the same order would test on capped entries only."""
    other = [{**record, "text": f"other {record['text']}"} for record in _records(100)]
    data = read({"a": _records(2_000), "b": other}, most_per_entry=100)
    tested = [item.entry for item in data.parts["test"]]
    assert 20 <= tested.count(1) <= 60
    assert len(tested) == 80


def test_an_entrys_own_split_is_kept(read):
    own = [{**record, "split": "test" if number < 20 else "train"} for number, record in enumerate(_records(50))]
    data = read({"own": own, "other": [{**record, "text": "+" + record["text"]} for record in _records(50)]})
    tested = [item for item in data.parts["test"] if item.entry == 0]
    assert {item.text for item in tested} == {record["text"] for record in own[:20]}
    assert len([item for item in data.parts["test"] if item.entry == 1]) == 20


def test_a_split_of_one_side_is_no_split(read):
    data = read({"a": [{**record, "split": "train"} for record in _records(50)]})
    assert len(data.parts["test"]) == 20


def test_a_copy_of_a_test_text_is_not_taught(read):
    own = [{**record, "split": "test" if number < 20 else "train"} for number, record in enumerate(_records(50))]
    copies = [{**record, "split": "train"} for record in own[:20]]
    data = read({"own": [*copies, *own, *copies]})
    assert {item.text for item in data.parts["test"]} == {record["text"] for record in own[:20]}


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        (_records(10), "has 10 distinct texts to learn good from"),
        (_records(60, ("good",)), "has 0 distinct texts to learn bad from"),
        (_records(60, ("high", "low")), r"0 distinct.*map existing labels in `labels`: high \(60\), low \(60\)"),
        ([*_records(30), {"text": "x"}], "line 61.*not a JSON object with `text` and `label`"),
        ([*_records(30), {"text": 3, "label": "good"}], "line 61.*not a JSON object"),
        ([*_records(30), ["x"]], "line 61.*not a JSON object"),
        ([], "has 0 distinct"),
        (
            [{**record, "split": "test"} for record in _records(30)]
            + [{"text": "x", "label": "good", "split": "train"}],
            "has 1 distinct texts to learn good from",
        ),
        (
            [{**record, "split": "train"} for record in _records(30)]
            + [{"text": "x", "label": "good", "split": "test"}],
            "has no bad in its test split",
        ),
    ],
)
def test_labels_that_cannot_teach_are_refused(read, tmp_path, write_jsonl, records, problem):
    path = write_jsonl(tmp_path / "x.jsonl", [record for record in records if isinstance(record, dict)])
    if records and isinstance(records[-1], list):
        path.write_text(path.read_text(encoding="utf-8") + '["x"]\n', encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        read({}, train=[str(path)])


def test_a_router_needs_two_domains(read, tmp_path, write_jsonl):
    write_jsonl(tmp_path / "law.jsonl", [f"Article {number}" for number in range(30)])
    with pytest.raises(UserError, match="texts of 1 labels"):
        read({}, known=("general", "law", "code"), train=[f"law={tmp_path / 'law.jsonl'}"])


def test_missing_and_damaged_files_are_refused(read, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    with pytest.raises(UserError, match=r"no data files found.*LABEL=PATH"):
        read({}, train=[str(path)])
    path.write_bytes(b"\x1f\x8b\x08\x00" + b"\x00" * 30)
    with pytest.raises(UserError, match="is damaged"):
        read({}, train=[str(path)])
    path.write_text('{"text": "' + "x" * 200 + '", "label": "good"}', encoding="utf-8")
    monkeypatch.setattr(labelled, "_MAX_LINE_BYTES", 100)
    with pytest.raises(UserError, match=r"line 1.*longer than"):
        read({}, train=[str(path)])


def test_a_file_lost_on_the_way_is_refused(tmp_path):
    entry = labelled.Entry("a", None, (tmp_path / "gone.jsonl",))
    with pytest.raises(UserError, match="cannot be read"):
        labelled.hashes(entry, FIELD)
    with pytest.raises(UserError, match="cannot be read"):
        labelled.read([entry], Classifier(train=("a",)), LABELS, 1, FIELD)
