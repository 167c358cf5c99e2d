"""A recipe is valid as a whole, or refused with the field, the value and the hint."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from configs.recipe import dump_recipe, load_recipe, parse_recipe, recipe_file
from twofold.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "configs" / "smoke.yaml"
SHIPPED = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.name != "base.yaml")

REFUSED = {
    "run_dir=s3://bucket/run": ("run_dir = 's3://bucket/run'", "is an address", "a folder that all machines share"),
    "sed=3": ("sed = 3", "not a key of the recipe", "did you mean seed?"),
    "data.near_duplicates.num_bucket=3": ("data.near_duplicates.num_bucket", "not a key", "did you mean num_buckets?"),
    "sources.law.langages=[ko]": ("sources.law.langages", "not a key", "did you mean languages?"),
    "phases.domain.lr_scheduler.warm_up=1": ("lr_scheduler.warm_up", "not a key", "did you mean warmup?"),
    "data.rules.ko.wordz.min=3": ("data.rules.ko", "no feature 'wordz'", "did you mean words"),
    "data.rules.ko.min_words.min=3": ("data.rules.ko", "no feature 'min_words'", "did you mean words or"),
    "data.rules.ko.xyz.min=3": ("data.rules.ko", "no feature 'xyz'", "docs/recipe.md#features lists them"),
    "batch=1": ("batch = 1", "not a key", "did you mean phases.NAME.global_batch_size"),
    "lr=1": ("lr = 1", "not a key", "did you mean phases.NAME.lr_scheduler.lr?"),
    "phases.general.lr_scheduler=3e-3": ("lr_scheduler = 0.003", "single value where a section", "warmup"),
    "sources.law=raw": (
        "sources.law = 'raw'",
        "single value where a section",
        "`law: {key: value}` with keys such as path",
    ),
    "data.rules.ko.words={}": ("data.rules.ko.words", "bounds nothing", "give min"),
    "data.rules.ko.words={min: 5, max: 2}": ("data.rules.ko.words", "min 5.0 above max 2.0", "swap"),
    "phases.general.tokens=30MB": ("tokens = '30MB'", "unit of bytes, not of tokens", "6T"),
    "phases.general.tokens=100": ("phases.0", "fewer than one batch", "raise `tokens`"),
    "phases.general.global_batch_size=4097": ("phases.0", "no multiple of sequence_length 128", "use 4096"),
    "phases.general.sequence_length=512": ("phases.general.sequence_length", "above model.max", "lower it"),
    "phases.domain.mixture.law=0.3": ("phases.1", "add up to 1.1", "add up to 1, such as law: 0.273"),
    "phases.domain.mixture={lore: 1}": ("phases.domain.mixture = 'lore'", "neither a source nor a route", "law"),
    "phases.domain.name=general": ("phases.general", "name of an earlier phase", "its own name"),
    "phases.general.lr_scheduler.min_lr=0": ("lr_scheduler", "constant with `min_lr`", "linear, cosine and wsd"),
    "phases.domain.lr_scheduler.decay_ratio=null": ("lr_scheduler", "wsd without", "decay_ratio"),
    "phases.domain.lr_scheduler.min_lr=1": ("lr_scheduler", "min_lr 1.0 above lr", "lower"),
    "phases.general.lr_scheduler.warmup=1T": ("phases.0", "warms up for longer", "lower"),
    "model.n_heads=3": ("model", "n_heads 3 does not divide", "multiple"),
    "model.n_kv_heads=3": ("model", "n_kv_heads 3 does not divide", "multiple"),
    "model={d_model: 12, n_layers: 1, n_heads: 4, n_kv_heads: 2, d_ff: 8}": ("model", "odd size 3", "even"),
    "tokenizer.vocab_size=288": ("tokenizer.vocab_size", "leaves no room", "use more than 288"),
    "tokenizer.weights={lore: 1}": ("tokenizer.weights = 'lore'", "neither a source nor a route", "law"),
    "tokenizer.weights={law: 0}": ("tokenizer.weights.law", "greater than 0", "correct"),
    "tokenizer={superwords: 0.2, pattern: plain}": ("tokenizer", "superwords 0.2 with the pattern", "exaone3-code"),
    "sources.law.languages=[]": ("sources.law", "accepts no language", "list ko"),
    "sources.law.format=pdf": ("sources.law.format", "should be", "use one of 'html'"),
    "data.validation_share=1.5": ("data.validation_share", "less than or equal to 1", "correct"),
    "optimizer.eps=.nan": ("optimizer.eps", "", "correct"),
    "seed=-1": ("seed = -1", "greater than or equal to 0", "correct"),
    "seed=1.5": ("seed = 1.5", "integer", "correct"),
    "phases.7.tokens=1": ("phases.7", "is not an item", "general, domain"),
    "seed.deep=1": ("seed", "has no keys", "shorten"),
    "nonsense": ("override", "is not key=value", "seed=7"),
    "seed=[1": ("override seed", "", "fix the YAML"),
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_mistake_is_one_line_with_field_problem_and_hint(override: str) -> None:
    with pytest.raises(UserError) as refused:
        load_recipe(SMOKE, [override])
    line = str(refused.value.problems[0])
    field, problem, hint = REFUSED[override]
    assert field in line
    assert problem in line
    assert hint in line.split("Hint: ")[1]
    assert "\n" not in line


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(UserError) as refused:
        load_recipe(SMOKE, ["sed=3", "model.n_heads=3", "phases.general.tokens=30MB"])
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_recipes_are_valid_and_survive_a_round_trip(path: Path) -> None:
    recipe = load_recipe(path)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_shipped_prompt_ends_in_a_blank(path: Path) -> None:
    """Words begin with their blank; after one, a model expects a digit or a sign."""
    recipe = load_recipe(path)
    assert [text for text in (*recipe.validation.prompts, *recipe.export.prompts) if text != text.rstrip()] == []


def test_a_recipe_is_frozen() -> None:
    recipe = load_recipe(SMOKE)
    with pytest.raises(ValidationError):
        recipe.seed = 8  # type: ignore[misc]


def test_overrides_reach_phases_by_name_and_by_index() -> None:
    recipe = load_recipe(SMOKE, ["phases.domain.tokens=200K", "phases.0.lr_scheduler.warmup=30K"])
    assert recipe.phases[1].tokens == 200_000
    assert recipe.phases[0].lr_scheduler.warmup == 30_000


def test_yaml_is_read_as_1_2() -> None:
    recipe = load_recipe(SMOKE, ["monitor.wandb=off", "optimizer.eps=1e-7", "data.near_duplicates.enabled=false"])
    assert (recipe.monitor.wandb, recipe.optimizer.eps, recipe.data.near_duplicates.enabled) == ("off", 1e-7, False)


def test_a_cpu_batch_that_ranks_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match=r"32 sequences, not divisible by 3 ranks x 8 .* Hint: use 3072 tokens"):
        load_recipe(SMOKE, ["launch.device=cpu", "launch.cpu_ranks=3"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "key 'seed' is written twice"),
        ("- a\n", "has no sections"),
        ("a: [\n", "line 2"),
        ("extends: bad.yaml\n", "extends itself"),
        ("", "has no sections"),
    ],
)
def test_broken_yaml_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_recipe(tmp_path / "bad.yaml")


def test_a_missing_or_binary_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8 text"):
        load_recipe(tmp_path / "binary.yaml")


def test_a_shipped_recipe_has_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_recipe("smoke") == load_recipe(ROOT / "configs" / "smoke.yaml")
    monkeypatch.chdir(tmp_path)
    assert recipe_file("smoke") == ROOT / "configs" / "smoke.yaml"
    assert recipe_file("smoke.yaml") == Path("smoke.yaml"), "a file name is a file name"
    Path("smoke").write_text("name: mine")
    assert recipe_file("smoke") == Path("smoke"), "a file of the working directory comes first"
    with pytest.raises(UserError, match=r"recipe = 'smoky': cannot be read \(No such file.*shipped recipe: .*smoke"):
        load_recipe("smoky")


def test_input_files_lie_in_the_working_directory_or_beside_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    for path in (here / "both", beside / "both", beside / "texts", beside / "labels", here / "own"):
        path.mkdir(parents=True)
    source = {"format": "jsonl", "license": "CC0-1.0"}
    paths = {"a": "both", "b": "texts", "c": "nowhere", "d": "s3://texts/x", "e": "t*xts"}
    top = {
        "extends": str(ROOT / "configs" / "smoke.yaml"),
        "sources": {name: {"path": path, **source} for name, path in paths.items()},
        "data": {"classifiers": {"quality": {"train": ["high=labels", "low=own"]}}},
    }
    (beside / "r.yaml").write_text(yaml.safe_dump(top))
    monkeypatch.chdir(here)
    recipe = load_recipe("../beside/r.yaml", ["data.decontamination.benchmarks.quiz=texts"])
    found = {name: recipe.sources[name].path for name in paths}
    folder = "../beside"
    expected = {"a": "both", "b": f"{folder}/texts", "c": "nowhere", "d": "s3://texts/x", "e": f"{folder}/t*xts"}
    assert found == expected
    assert recipe.data.classifiers.quality.train == (f"high={folder}/labels", "low=own")
    assert recipe.data.decontamination.benchmarks["quiz"] == "texts", "an override means the working directory"
    assert recipe.sources["law"].path == str(ROOT / "configs" / "examples" / "corpus" / "domain" / "law")


def test_null_removes_an_inherited_source(tmp_path: Path) -> None:
    top = {"extends": str(SMOKE), "sources": {"law": None}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(top))
    with pytest.raises(UserError, match=r"mixture = 'law': is neither a source nor a route") as refused:
        load_recipe(tmp_path / "r.yaml")
    assert len(refused.value.problems) == 1
    mixture = "phases.domain.mixture={math: 1}"
    assert "law" not in load_recipe(tmp_path / "r.yaml", [mixture]).sources
    assert "law" not in load_recipe(SMOKE, [mixture, "sources.law=null"]).sources
    with pytest.raises(UserError, match=r"sources.lore"):
        load_recipe(SMOKE, ["sources.lore=null"])
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**top, "sources": {"lore": None}}))
    with pytest.raises(UserError, match=r"sources.lore"):
        load_recipe(tmp_path / "r.yaml")


def test_a_vocabulary_may_have_a_unit() -> None:
    assert load_recipe(SMOKE, ["tokenizer.vocab_size=4k"]).tokenizer.vocab_size == 4_000


def test_weights_of_a_mixture_are_scaled_and_shares_are_not() -> None:
    mixture = load_recipe(SMOKE, ["phases.domain.mixture={law: 3, math: 1}"]).phases[1].mixture
    assert mixture == {"law": 0.75, "math": 0.25}
    with pytest.raises(UserError, match=r"add up to 0.9"):
        load_recipe(SMOKE, ["phases.domain.mixture={law: 0.6, math: 0.3}"])


def test_data_only_work_needs_data_sections_only(tmp_path: Path) -> None:
    head = "extends: {base}\nname: n\nseed: 1\nrun_dir: r\nsources: {{a: {{path: p, format: text, license: x}}}}\n"
    file = tmp_path / "r.yaml"
    file.write_text(head.format(base=ROOT / "configs" / "base.yaml"))
    recipe = load_recipe(file)
    assert (recipe.phases, recipe.tokenizes) == ((), False)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    assert load_recipe(file, ["tokenizer.vocab_size=4096"]).tokenizes
    with pytest.raises(UserError, match=r"has a model but no phases. Hint: add `phases`"):
        load_recipe(file, ["model={d_model: 8, n_layers: 1, n_heads: 2, n_kv_heads: 1, d_ff: 8}"])
    size = "tokens: 1K, sequence_length: 8, global_batch_size: 64"
    phase = f"phases=[{{name: a, {size}, mixture: {{a: 1}}, lr_scheduler: {{lr: 1}}}}]"
    with pytest.raises(UserError, match=r"has phases but no tokenizer and no model. Hint: add the section tokenizer"):
        load_recipe(file, [phase])
