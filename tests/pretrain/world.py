"""A small synthetic world for the trainer's tests: shards, byte table, recipe; and how to start it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from configs.recipe import dump_recipe, parse_recipe
from configs.schema import Recipe
from pretrain.data.order import Order
from pretrain.data.plan import Plan
from tokenizer import shards

ROOT = Path(__file__).resolve().parents[2]
VOCAB = 352
EOS = 2
SOURCES = {"news": ("general", 9_000), "books": ("general", 7_000), "law": ("law", 5_000), "code": ("code", 4_000)}
TOKENIZER_IDENTITY = "a" * 64


def recipe(**changes: Any) -> Recipe:
    """The tests' recipe; `changes` are dotted keys with `__` for the dots."""
    base = yaml.safe_load((ROOT / "configs" / "base.yaml").read_text(encoding="utf-8"))
    tree: dict[str, Any] = {"data": base["data"]}
    rate = {"schedule": "constant", "lr": 5e-3, "warmup": 512}
    decay = {"schedule": "wsd", "lr": 5e-3, "min_lr": 0, "decay_ratio": 0.5}
    tree |= {
        "name": "tiny",
        "seed": 7,
        "run_dir": "runs/tiny",
        "sources": {
            name: {"path": name, "format": "jsonl", "domain": domain, "license": "CC0-1.0"}
            for name, (domain, _) in SOURCES.items()
        },
        "tokenizer": {"vocab_size": VOCAB, "reserved_ids": 8},
        "model": {"d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_ff": 64, "max_sequence_length": 64},
        "phases": [
            {
                "name": "general",
                "tokens": 2048,
                "sequence_length": 32,
                "global_batch_size": 256,
                "lr_scheduler": rate,
                "mixture": {"news": 0.6, "books": 0.4},
                "mixture_block_size": 20,
                "z_loss": 1e-4,
            },
            {
                "name": "domain",
                "tokens": 3072,
                "sequence_length": 32,
                "global_batch_size": 512,
                "lr_scheduler": decay,
                "mixture": {"law": 0.4, "code": 0.4, "news": 0.2},
                "mixture_block_size": 20,
            },
        ],
        "engine": {"precision": "bf16", "micro_batch_size": 2, "persistence_threshold": 1000},
        "checkpoints": {"every": 1024, "keep": 2},
        "validation": {"every": 1024, "sequences_per_source": 3},
        "monitor": {"wandb": "off"},
        "launch": {"device": "cpu", "cpu_ranks": 2},
    }
    for key, value in changes.items():
        node = tree
        *parents, last = key.split("__")
        for part in parents:
            node = node[int(part)] if part.isdecimal() else node.setdefault(part, {})
        node[last] = value
    return parse_recipe(tree)


def write_shards(folder: Path, seed: int = 0, tokens: dict[str, int] | None = None) -> Path:
    """Shards of learnable text: each source repeats its own short phrases. Two shards a source."""
    sizes = tokens or {name: size for name, (_, size) in SOURCES.items()}
    splits = {
        split: {
            name: _write_source(folder, split, name, int(size * share), [seed, number])
            for number, (name, size) in enumerate(sizes.items())
        }
        for split, share in (("train", 1.0), ("validation", 0.05))
    }
    shards.write_index(folder, VOCAB, TOKENIZER_IDENTITY, splits)
    return folder


def _write_source(folder: Path, split: str, name: str, size: int, seed: list[int]) -> shards.SourceShards:
    phrases = np.random.default_rng(seed).integers(268, VOCAB, size=(6, 9))
    random = np.random.default_rng([*seed, len(split)])
    documents = []
    while sum(map(len, documents)) < size:
        text = phrases[random.integers(0, 6, size=random.integers(2, 12))].reshape(-1)
        documents.append([*text.tolist(), EOS])
    written = []
    for task, part in enumerate((documents[: len(documents) // 3], documents[len(documents) // 3 :])):
        rows = {"id": [str(n) for n in range(len(part))], "source": [name] * len(part), "language": ["en"] * len(part)}
        lengths = [3 * len(ids) for ids in part]
        with shards.ShardWriter(folder, f"{split}/{name}/{task:05d}.ds") as writer:
            ends = np.cumsum([len(ids) for ids in part])
            tokens = np.array([number for ids in part for number in ids], np.uint32)
            writer.add(tokens, ends, {**rows, "bytes": lengths})
        written.append(writer.shard())
    totals = {key: sum(getattr(shard, key) for shard in written) for key in ("documents", "tokens", "bytes")}
    return shards.SourceShards(domain=SOURCES.get(name, ("general", 0))[0], **totals, shards=tuple(written))


def poison(folder: Path, recipe: Recipe, steps: list[int]) -> None:
    """Overwrite the sequences of some steps (indexes) with noise, in the shards' files."""
    index, plan = shards.read_index(folder), Plan(recipe)
    order = Order(recipe.seed, recipe.phases, index.tokens("train"))
    for number in steps:
        step = plan.at(number)
        samples = order.samples(step.phase, step.first_sample, step.sequences)
        for source, sequence in zip(samples.source, samples.sequence, strict=True):
            first = int(sequence) * step.sequence_length
            for shard in index.splits["train"][order.sources[source]].shards:
                here = slice(max(0, first), max(0, first + step.sequence_length))
                tokens = np.memmap(folder / shard.path, "<u4", mode="r+")
                noise = np.random.default_rng([number, abs(first)]).integers(12, VOCAB, len(tokens[here]))
                tokens[here] = np.where(tokens[here] == EOS, EOS, noise)
                first -= shard.tokens


def write_token_bytes(folder: Path) -> Path:
    """A byte table: specials and reserved ids stand for nothing, bytes for one, merges for three."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.zeros(VOCAB, np.int32)
    table[12:268] = 1
    table[268:] = 3
    np.save(folder / "token_bytes.npy", table)
    return folder


class Run:
    """One training folder and the launcher to train in it."""

    def __init__(self, root: Path, recipe: Recipe, shards_dir: Path, tokenizer: Path) -> None:
        self.recipe, self.shards, self.tokenizer = recipe, shards_dir, tokenizer
        self.out = root / "out"
        self.out.mkdir(parents=True, exist_ok=True)
        self.recipe_file = root / "recipe.yaml"
        self.recipe_file.write_text(dump_recipe(recipe), encoding="utf-8")

    def start(self, *options: str, ranks: int | None = None, module: str = "pretrain.start") -> subprocess.Popen[bytes]:
        """By DeepSpeed's launcher of one node, which its `deepspeed` command starts; tests/launch begin with that."""
        slots = {"localhost": list(range(ranks or self.recipe.launch.cpu_ranks))}
        world = base64.urlsafe_b64encode(json.dumps(slots).encode()).decode()
        port = 20_000 + os.getpid() % 20_000
        paths = {"recipe": self.recipe_file, "shards": self.shards, "tokenizer": self.tokenizer, "out": self.out}
        command = [
            sys.executable,
            "-m",
            "deepspeed.launcher.launch",
            f"--world_info={world}",
            "--master_addr=127.0.0.1",
            f"--master_port={port}",
            "--module",
            module,
            "--device",
            "cpu",
            *(word for name, path in paths.items() for word in (f"--{name}", str(path))),
            *options,
        ]
        environment = {
            **os.environ,
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        with (self.out / "train.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)

    def train(self, *options: str, ranks: int | None = None, module: str = "pretrain.start") -> int:
        """Exit code; a trainer that hangs fails the test."""
        return self.start(*options, ranks=ranks, module=module).wait(timeout=600)

    @property
    def log(self) -> str:
        return (self.out / "train.log").read_text(encoding="utf-8", errors="replace")

    def events(self, kind: str) -> list[dict[str, Any]]:
        path = self.out / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def curve(self) -> list[tuple[Any, ...]]:
        """What must be equal between runs, bit for bit."""
        keys = ("step", "loss", "z_loss", "grad_norm", "lr", "tokens", "batch_hash")
        return [tuple(event[key] for key in keys) for event in self.events("train")]
