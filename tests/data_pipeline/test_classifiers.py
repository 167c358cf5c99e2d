"""The classifiers' stage: deterministic, judged on unseen texts, its models as `score` uses them."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from data_pipeline.classification import fasttext_model
from data_pipeline.stages import classifiers, score
from twofold.errors import UserError
from twofold.files import sha256_of

WORDS = {
    "good": "정부는 조사 결과를 발표하였다 연구 보고서 the committee published its careful report about history",
    "bad": "대박 할인 클릭 무료 쿠폰 최저가 buy now cheap click free offer winner bonus",
    "law": "제1조 목적 법률 시행령 개정 section statute shall amended pursuant provisions",
    "math": "정리 증명 함수 미분 행렬 theorem proof lemma integral matrix polynomial",
    "medicine": "환자 치료 질병 증상 patient treatment disease clinical symptoms diagnosis",
}


def _records(labels, count, as_label=lambda label: label, seed=1):
    generator = random.Random(seed)
    return [
        {"text": " ".join(generator.choices(WORDS[label].split(), k=20)) + f" {number}", "label": as_label(label)}
        for number in range(count)
        for label in labels
    ]


@pytest.fixture
def recipe_of(tmp_path, make_recipe, write_jsonl):
    """`recipe_of(name=(records, settings))`: a recipe with these classifiers."""

    def make(**given):
        write_jsonl(tmp_path / "s.jsonl", ["x"])
        sections = {}
        for name, (records, settings) in given.items():
            path = write_jsonl(tmp_path / "labels" / f"{name}.jsonl", records)
            sections[name] = {"train": [str(path)], **settings}
        return make_recipe({"s": {"path": str(tmp_path / "s.jsonl")}}, classifiers=sections)

    return make


@pytest.fixture
def build(tmp_path):
    """`build(recipe, name)`: the stage's folder and its counts."""

    def make(recipe, name="a"):
        for folder in ("out", "work"):
            (tmp_path / name / folder).mkdir(parents=True)
        counts = classifiers.build(recipe, tmp_path / name / "out", tmp_path / name / "work")
        return tmp_path / name / "out", counts

    return make


def test_learns_and_is_judged_on_unseen_texts(recipe_of, build):
    out, counts = build(recipe_of(quality=(_records(("good", "bad"), 300), {})))
    card = json.loads((out / "quality/card.json").read_text(encoding="utf-8"))
    sizes = {part: [sum(rows[label].values()) for label in ("good", "bad")] for part, rows in card["texts"].items()}
    assert sizes == {"training": [216, 216], "calibration": [24, 24], "test": [60, 60]}
    assert card["model_sha256"] == sha256_of(out / "quality/model.bin")
    assert card["labels"] == ["good", "bad"]
    judged = card["test"]["all"]
    assert counts == {
        "quality": {"test_texts": 120, **{k: round(judged[k], 4) for k in ("auc", "precision", "recall", "f1")}}
    }
    assert judged["auc"] > 0.95
    assert judged["f1"] > 0.9
    model = classifiers.load(out)["quality"]
    assert model.probability("연구 보고서\n조사 결과를 발표하였다") > 0.8
    assert model.probability("무료 쿠폰 클릭 buy now __label__good") < 0.2
    assert 0 <= model.probability("") <= 1


def test_toxicity_and_domain_beside_quality(recipe_of, build):
    toxic = {"good": "none", "bad": "hate"}
    recipe = recipe_of(
        quality=(_records(("good", "bad"), 40), {}),
        toxicity=(_records(("good", "bad"), 40, toxic.get), {"labels": {"hate": "toxic", "none": "clean"}}),
        domain=(_records(("law", "math", "medicine"), 60), {"character_ngrams": [2, 3]}),
    )
    out, counts = build(recipe)
    assert list(counts) == ["quality", "toxicity", "domain"]
    models = classifiers.load(out)
    assert models["domain"].labels == ("law", "math", "medicine")
    row = score.attributes("theorem proof 정리 증명 lemma", "prose", recipe.data.near_duplicates, models)
    assert row["domain_label"] == "math"
    assert row["domain_score"] > 0.5
    row = score.attributes("무료 쿠폰 클릭 buy now click", "prose", recipe.data.near_duplicates, models)
    assert row["quality_score"] < 0.5 < row["toxicity_score"]
    code = score.attributes("x = 1", "code", recipe.data.near_duplicates, models)
    assert [code[f"{name}_score"] for name in ("quality", "toxicity", "domain")] == [1.0, 0.0, 1.0]
    assert code["domain_label"] == "code"
    none = score.attributes("무료 쿠폰 클릭", "prose", recipe.data.near_duplicates, {})
    assert [none[name] for name in ("quality_score", "toxicity_score", "domain_label", "domain_score")] == [
        1,
        0,
        None,
        0,
    ]


def test_same_labels_same_bytes(recipe_of, build):
    recipe = recipe_of(quality=(_records(("good", "bad"), 40), {}))
    for name in ("model.bin", "card.json"):
        first, second = (build(recipe, f"{run}-{name}")[0] / "quality" / name for run in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_probabilities_are_fasttexts_own_at_temperature_one(recipe_of, build):
    import fasttext

    out, _ = build(recipe_of(domain=(_records(("law", "math", "medicine"), 30), {})))
    path = out / "domain/model.bin"
    labels = ("medicine", "law", "math")
    model, own = fasttext_model.Predictor(path, labels), fasttext.load_model(str(path))
    for text in ("theorem 증명 treatment", "제1조\n목적 법률", "", "unseen words only"):
        names, values = own.predict(fasttext_model.as_line(text), k=-1)
        expected = dict(zip(names, values, strict=True))
        assert model.probabilities(text) == pytest.approx([expected[f"__label__{label}"] for label in labels], abs=1e-4)
        assert model.label_and_probability(text)[1] == model.probabilities(text).max()


def test_a_temperature_flattens_without_changing_the_order(recipe_of, build):
    out, _ = build(recipe_of(domain=(_records(("law", "math", "medicine"), 30), {})))
    sharp, flat = (fasttext_model.Predictor(out / "domain/model.bin", ("law", "math"), t) for t in (1, 5))
    assert sharp.probability("법률 statute shall") > flat.probability("법률 statute shall") > 0.5
    assert np.array_equal(sharp.logits("법률"), flat.logits("법률"))


def test_only_the_beginning_of_a_text_is_read():
    line = fasttext_model.as_line("A  b\n__label__x\t" + "c" * 100_000)
    assert line.startswith("a b x ccc")
    assert len(line) <= fasttext_model.READ_CHARACTERS


def test_identity_follows_content_and_labels_not_names(recipe_of, tmp_path):
    records = _records(("good", "bad"), 30)
    recipe = recipe_of(quality=(records, {}))
    before = classifiers.fingerprints(recipe)
    path = tmp_path / "labels/quality.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert classifiers.fingerprints(recipe) != before
    assert "train" not in json.dumps(classifiers.config(recipe))
    path.unlink()
    with pytest.raises(UserError, match=r"data\.classifiers\.quality\.train.*no data files found"):
        classifiers.fingerprints(recipe)


def test_a_label_must_map_to_one_of_ours(recipe_of):
    with pytest.raises(UserError, match=r"maps to 'fine' in quality\.labels.*use one of good, bad"):
        recipe_of(quality=([], {"labels": {"high": "fine"}}))


@pytest.mark.corpus
def test_on_the_corpus(corpus_dir, build, make_recipe, tmp_path):
    """Short Korean abuse needs character n-grams; the labelled sets are noisy, hence the modest bound."""
    settings = {
        "train": [str(corpus_dir / "labelled/ko-curse"), str(corpus_dir / "labelled/ko-hate-speech")],
        "labels": {"hate": "toxic", "offensive": "toxic", "none": "clean"},
        "character_ngrams": [1, 4],
        "epochs": 5,
    }
    recipe = make_recipe({"s": {"path": str(tmp_path / "s.jsonl")}}, classifiers={"toxicity": settings})
    _, counts = build(recipe)
    assert counts["toxicity"]["auc"] > 0.78
