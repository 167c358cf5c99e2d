"""Training speed on a CPU: this trainer beside transformers' Trainer, both on DeepSpeed ZeRO-3.

    python -m benchmarks.train_cpu [--ranks 2] [--steps 30] [--json OUT]

The same model (the smoke recipe's shape), sequences, global batch, micro-batch, precision (bf16 with
float32 gradient accumulation), optimizer and clipping, under the same launcher with the same threads; random
tokens. Each contestant runs in turn, in processes of its own; the figure is the median of tokens a second
over the steps after the first third. Ours does all that it does for a user: data order, hashes, spike guard,
metrics file. The peer logs nothing and saves nothing. Needs `pip install accelerate` for the peer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import parser, report
from configs.recipe import dump_recipe, load_recipe, parse_recipe
from configs.schema import Recipe
from pretrain.engine.ds_config import deepspeed_config
from pretrain.hooks.metrics import METRICS_FILE, read_events
from tokenizer import shards

ROOT = Path(__file__).parent.parent


def main() -> None:
    options = parser("train_cpu", __doc__.splitlines()[0])
    options.add_argument("--ranks", type=int, default=2)
    options.add_argument("--steps", type=int, default=30)
    options.set_defaults(repetitions=3)
    chosen = options.parse_args()
    ours: list[dict[str, float]] = []
    peer: list[dict[str, float]] = []
    for _ in range(chosen.repetitions):
        with tempfile.TemporaryDirectory() as name:
            recipe = _recipe(chosen.ranks, chosen.steps, Path(name))
            ours.append(_ours(recipe, Path(name)))
            peer.append(_peer(recipe, Path(name), chosen.steps))
    figures = {key: statistics.median(run[key] for run in ours) for key in ours[0]}
    theirs = {key: statistics.median(run[key] for run in peer) for key in peer[0]}
    ratio = {"tps": figures["tps"] / theirs["tps"]}
    settings = {"ranks": chosen.ranks, "steps": chosen.steps, "repetitions": chosen.repetitions}
    peers = {"transformers Trainer": theirs}
    report("train_cpu", {**settings, "ours": figures, "peers": peers, "ratio": ratio}, chosen.json)


def _recipe(ranks: int, steps: int, folder: Path) -> Recipe:
    tree = load_recipe(ROOT / "configs" / "smoke.yaml").model_dump(mode="json")
    general = {**tree["phases"][0], "mixture": {"ko-web": 1.0}, "max_epochs": 1000}
    general |= {"tokens": steps * general["global_batch_size"], "lr_scheduler": {"lr": 1e-3}}
    tree |= {"phases": [general], "run_dir": str(folder)}
    tree["checkpoints"]["every"] = tree["validation"]["every"] = 10**12
    tree["validation"]["prompts"] = []
    tree["monitor"]["wandb"] = "off"
    tree["launch"] = {"device": "cpu", "cpu_ranks": ranks, "gpus_per_node": 1}
    return parse_recipe(tree)


def _ours(recipe: Recipe, folder: Path) -> dict[str, float]:
    vocab, tokens = recipe.tokenizer.vocab_size, 2_000_000
    data = folder / "shards"
    if not data.exists():
        sizes = {"documents": 1, "tokens": tokens, "bytes": tokens}
        splits: dict[str, dict[str, shards.SourceShards]] = {}
        for split in ("train", "validation"):
            with shards.ShardWriter(data, f"{split}/ko-web/00000.ds") as writer:
                drawn = np.random.default_rng(0).integers(5, vocab, tokens, dtype=np.uint32)
                columns = {"id": ["0"], "source": ["ko-web"], "language": ["ko"], "bytes": [tokens]}
                writer.add(drawn, np.array([tokens]), columns)
            splits[split] = {"ko-web": shards.SourceShards(domain="general", **sizes, shards=(writer.shard(),))}
        shards.write_index(data, vocab, "0" * 64, splits)
        (folder / "tokenizer").mkdir()
        np.save(folder / "tokenizer" / "token_bytes.npy", np.ones(vocab, np.int32))
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    out = folder / "ours"
    out.mkdir()
    arguments = ["--recipe", folder / "recipe.yaml", "--shards", data, "--tokenizer", folder / "tokenizer"]
    _launch(recipe, "pretrain.start", [*arguments, "--out", out, "--device", "cpu"], folder / "ours.log")
    steps = [event for event in read_events(out / METRICS_FILE) if event["event"] == "train"]
    steps = steps[len(steps) // 3 :]
    return {
        "tps": statistics.median(step["tps"] for step in steps),
        "data_loading_pct": statistics.median(step["data_loading_pct"] for step in steps),
        "memory_mb": steps[-1]["memory_bytes"] / 2**20,
    }


def _peer(recipe: Recipe, folder: Path, steps: int) -> dict[str, float]:
    out = folder / "peer.json"
    settings = folder / "peer-settings.json"
    settings.write_text(json.dumps(_peer_settings(recipe, steps)), encoding="utf-8")
    _launch(recipe, "benchmarks.peer_trainer", [settings, out], folder / "peer.log")
    found: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
    return found


def _peer_settings(recipe: Recipe, steps: int) -> dict[str, Any]:
    model, phase = recipe.model, recipe.phases[0]
    config = deepspeed_config(recipe, recipe.launch.cpu_ranks, "cpu")
    micro = recipe.engine.micro_batch_size
    accumulation = phase.global_batch_size // (phase.sequence_length * micro * recipe.launch.cpu_ranks)
    config |= {
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": phase.global_batch_size // phase.sequence_length,
    }
    return {
        "deepspeed": config, "steps": steps, "accumulation": accumulation, "micro_batch": micro,
        "sequence_length": phase.sequence_length, "clip": recipe.optimizer.max_grad_norm,
        "model": {
            "vocab_size": recipe.tokenizer.vocab_size, "hidden_size": model.d_model,
            "intermediate_size": model.d_ff, "num_hidden_layers": model.n_layers,
            "num_attention_heads": model.n_heads, "num_key_value_heads": model.n_kv_heads,
            "max_position_embeddings": model.max_sequence_length, "tie_word_embeddings": False,
        },
        "weight_decay": recipe.optimizer.weight_decay, "learning_rate": 1e-3,
    }  # fmt: skip


def _launch(recipe: Recipe, module: str, arguments: list[Any], log: Path) -> None:
    ranks = recipe.launch.cpu_ranks
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(threads)}
    command = [
        sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", str(ranks), "--master_port", "29731",
        "--module", module, *map(str, arguments),
    ]  # fmt: skip
    with log.open("wb") as stream:
        code = subprocess.run(command, env=environment, cwd=ROOT, stdout=stream, stderr=stream, check=False).returncode
    if code:
        raise SystemExit(log.read_text(encoding="utf-8", errors="replace")[-3000:] + f"\n{module} ended with {code}")


if __name__ == "__main__":
    main()
