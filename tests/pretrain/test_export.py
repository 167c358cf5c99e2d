"""Export: a checkpoint that transformers opens, tokenizer beside it, samples that repeat."""

from __future__ import annotations

import json
from itertools import islice, product
from pathlib import Path

import pytest
import torch
import transformers
import world

from configs.schema import Recipe
from pretrain import layout
from pretrain.checkpoints import safetensors_stream
from pretrain.model import generate
from pretrain.model.decoder import initial_weights, parameter_shapes
from pretrain.stages import export
from tokenizer.formats import special_tokens, write_tokenizer
from twofold.artifacts import Artifact, Manifest
from twofold.special_ids import EOS_ID, SPECIAL_TOKENS


def _artifact(path: Path, name: str) -> Artifact:
    return Artifact(path, Manifest(name, "0" * 64, 1, {}, {}, {}, (), {}, ""))


@pytest.fixture
def recipe() -> Recipe:
    return world.recipe(export__prompts=["ab ", "가나"], export__new_tokens=9, export__dtype="float32")


@pytest.fixture
def trained(tmp_path: Path, recipe: Recipe) -> Artifact:
    shapes = parameter_shapes(recipe.model, world.VOCAB)
    weights = ((name, value * 4) for name, value in initial_weights(recipe.model, world.VOCAB, 5))
    safetensors_stream.write(tmp_path / "train" / layout.weights_file("domain"), shapes, torch.float32, weights)
    return _artifact(tmp_path / "train", "train")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Artifact:
    """A byte-level BPE of the tests' size: specials, 256 bytes, merges of two letters."""
    merges = world.VOCAB - 256 - len(special_tokens(8))
    write_tokenizer(
        tmp_path / "tokenizer", list(map("".join, islice(product("abcdefghij", repeat=2), merges))), 8, "plain"
    )
    return _artifact(tmp_path / "tokenizer", "tokenizer")


def test_the_exported_folder_is_complete_and_repeats(
    tmp_path: Path, recipe: Recipe, trained: Artifact, tokenizer: Artifact
) -> None:
    out = tmp_path / "out"
    counts = export.build(recipe, trained, tokenizer, out, tmp_path / "work")
    assert sorted(path.name for path in (out / "model").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    samples = json.loads((out / "samples.json").read_text(encoding="utf-8"))
    assert [sample["prompt"] for sample in samples] == ["ab ", "가나"]
    assert counts["samples"] == 2
    assert counts["weight_files"] == 1
    again = tmp_path / "again"
    export.build(recipe, trained, tokenizer, again, tmp_path / "work")
    for path in (p for p in out.rglob("*") if p.is_file()):
        assert (again / path.relative_to(out)).read_bytes() == path.read_bytes()


@torch.no_grad()
def test_transformers_opens_it_with_its_tokenizer_and_equal_logits(
    tmp_path: Path, recipe: Recipe, trained: Artifact, tokenizer: Artifact
) -> None:
    export.build(recipe, trained, tokenizer, tmp_path / "out", tmp_path / "work")
    folder = tmp_path / "out" / "model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = transformers.AutoTokenizer.from_pretrained(folder)("abc 가나다 def", return_tensors="pt").input_ids
    ours = generate.load(recipe, folder, torch.float32)
    assert float((theirs(ids).logits - ours(ids)).abs().max()) <= 1e-5


def test_every_file_names_the_bos_that_training_saw(
    tmp_path: Path, recipe: Recipe, trained: Artifact, tokenizer: Artifact
) -> None:
    """Documents are joined by eos alone; a reader that starts with another id starts with one that is untrained."""
    export.build(recipe, trained, tokenizer, tmp_path / "out", tmp_path / "work")
    files = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out" / "model").glob("*.json")}
    for name in ("config.json", "generation_config.json"):
        assert (files[name]["bos_token_id"], files[name]["eos_token_id"], files[name]["pad_token_id"]) == (2, 2, 0)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        assert files[name]["bos_token"] == files[name]["eos_token"] == SPECIAL_TOKENS[EOS_ID]
    assert files["tokenizer.json"]["post_processor"] is None, "nothing is added around a text"
    assert not any("bos" in token["content"] for token in files["tokenizer.json"]["added_tokens"])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (EOS_ID, EOS_ID, 0)
    assert "bos" not in theirs.decode(theirs("ab").input_ids)


def test_a_tokenized_prompt_is_generated_from_and_cut_at_the_model_s_length(
    tmp_path: Path, recipe: Recipe, trained: Artifact, tokenizer: Artifact
) -> None:
    export.build(recipe, trained, tokenizer, tmp_path / "out", tmp_path / "work")
    folder = tmp_path / "out" / "model"
    model, theirs = (
        auto.from_pretrained(folder) for auto in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    )
    assert model.generate(**theirs("가나 ab", return_tensors="pt"), max_new_tokens=2).shape[0] == 1
    limit = recipe.model.max_sequence_length
    assert len(theirs("가 " * limit, truncation=True).input_ids) == theirs.model_max_length == limit


def test_bf16_export_halves_the_bytes(tmp_path: Path, recipe: Recipe, trained: Artifact, tokenizer: Artifact) -> None:
    recipe = recipe.model_copy(update={"export": recipe.export.model_copy(update={"dtype": "bfloat16"})})
    export.build(recipe, trained, tokenizer, tmp_path / "out", tmp_path / "work")
    exported = (tmp_path / "out" / "model" / "model.safetensors").stat().st_size
    full = (trained.path / layout.weights_file("domain")).stat().st_size
    assert exported / full == pytest.approx(0.5, abs=0.02)


def test_no_prompts_no_samples(tmp_path: Path, recipe: Recipe, trained: Artifact, tokenizer: Artifact) -> None:
    recipe = recipe.model_copy(update={"export": recipe.export.model_copy(update={"prompts": ()})})
    assert export.build(recipe, trained, tokenizer, tmp_path / "out", tmp_path / "work")["samples"] == 0
    assert json.loads((tmp_path / "out" / "samples.json").read_text()) == []


def _parrot(after: dict[int, int]) -> torch.nn.Module:
    """A model that is sure of what follows the last token, and remembers how much it was shown."""

    class Parrot(torch.nn.Module):
        longest = 0

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            self.longest = max(self.longest, tokens.shape[1])
            logits = torch.full((1, tokens.shape[1], 10), -1e9)
            logits[0, -1, after[int(tokens[0, -1])]] = 0.0
            return logits

    return Parrot()


def test_generation_ends_with_the_document_or_the_count_and_keeps_to_its_window() -> None:
    generator = torch.Generator().manual_seed(0)
    assert generate.generate(_parrot({5: 6, 6: 7, 7: 2}), [5], 9, 4, generator) == [5, 6, 7]
    model = _parrot({5: 6, 6: 5})
    assert generate.generate(model, [5], 7, 4, generator) == [5, 6, 5, 6, 5, 6, 5, 6]
    assert model.longest == 4


def test_config_is_what_decides_the_export() -> None:
    one = export.config(world.recipe())
    assert one == export.config(world.recipe(model__d_ff=96))
    for change in ({"seed": 8}, {"export__dtype": "float32"}, {"export__prompts": ["x"]}):
        assert export.config(world.recipe(**change)) != one
