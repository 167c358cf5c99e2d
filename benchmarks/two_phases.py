"""What do two phases buy? general -> domain against one mixed phase and against general only.

    python -m benchmarks.two_phases [--seeds 3] [--tokens 2000000] [--docs docs] [tokenizer.vocab_size=2048 …]

Equal tokens, model, learning rate and decay in every arm; the mixed arm sees each source exactly as often
as the two-phase arm does, in another order. The real trainer under the deepspeed launcher, on the shards
of the recipe's run (made first where they are missing). Bits per byte on the held-out windows of each
source, averaged over the general and over the domain sources. Seeds decide weights and data order.

A finished run is kept (`<run_dir>/two-phases/<arm>-<seed>`) and not made again, so the benchmark can be
interrupted. `--docs` writes the table and the plot (docs/two-phases.md, two-phases.svg).
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import CONSOLE, machine
from configs.recipe import load_recipe, parse_recipe
from configs.schema import Recipe
from launch import training
from launch.reports import plots
from launch.runner import run_recipe
from twofold.artifacts import Artifact
from twofold.files import atomic_path, write_json

GENERAL_SHARE = 0.75
"""6 T of 8 T tokens."""
DECAY_RATIO = 0.125
"""Of all tokens: half of the second phase."""
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Student's t, two-sided 95 %, by number of seeds."""

_CAVEAT = """![Bits per byte by arm and seed](two-phases.svg)

Made by `python -m benchmarks.two_phases --docs docs`. The scale is a millionth of the real one. It shows
in which direction the order of the data pulls when the learning rate decays over the domain text, but not how
strongly at 8 T tokens."""

Mixture = Mapping[str, float]
Scores = dict[str, dict[str, list[float]]]
"""Arm -> group of sources -> bits per byte by seed."""


def main() -> None:
    options = _options()
    base = load_recipe(options.recipe, options.overrides)
    artifacts = run_recipe(base, CONSOLE, until="shards").artifacts
    shards, tokenizer = artifacts["shards"], artifacts["tokenizer"]
    scores: Scores = {}
    for seed in range(1, options.seeds + 1):
        for arm, phases in arms(base, options.tokens).items():
            recipe = with_phases(base, phases, seed)
            found = _trained(recipe, shards, tokenizer, Path(base.run_dir) / "two-phases" / f"{arm}-{seed}")
            for group, value in by_group(base, found).items():
                scores.setdefault(arm, {}).setdefault(group, []).append(value)
            CONSOLE.print(f"  {arm:<12} seed {seed}  " + json.dumps({g: v[-1] for g, v in scores[arm].items()}))
    result = {
        "benchmark": "two_phases", "tokens": options.tokens, "seeds": options.seeds, "bits_per_byte": scores,
        "machine": machine(), "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    if options.json:
        write_json(options.json, result)
    text = table(scores, base, options.tokens)
    CONSOLE.print(text)
    if options.docs:
        _write_docs(options.docs, text, scores)


def arms(base: Recipe, tokens: int) -> dict[str, list[dict[str, Any]]]:
    """Phases by arm; the two-phase arm has the recipe's mixtures."""
    general, domain = base.phases[0].mixture, base.phases[-1].mixture
    first = round(tokens * GENERAL_SHARE)
    mixed = {
        name: GENERAL_SHARE * general.get(name, 0.0) + (1 - GENERAL_SHARE) * domain.get(name, 0.0)
        for name in dict.fromkeys((*general, *domain))
    }
    decay = {"schedule": "wsd", "min_lr": 0}
    return {
        "two phases": [
            {"name": "general", "tokens": first, "mixture": dict(general), "schedule": {"schedule": "constant"}},
            {
                "name": "domain", "tokens": tokens - first, "mixture": dict(domain),
                "schedule": {**decay, "decay_ratio": DECAY_RATIO / (1 - GENERAL_SHARE)},
            },
        ],
        "mixed": [
            {"name": "mixed", "tokens": tokens, "mixture": mixed, "schedule": {**decay, "decay_ratio": DECAY_RATIO}}
        ],
        "general only": [
            {
                "name": "general", "tokens": tokens, "mixture": dict(general),
                "schedule": {**decay, "decay_ratio": DECAY_RATIO},
            }
        ],
    }  # fmt: skip


def with_phases(base: Recipe, phases: Sequence[Mapping[str, Any]], seed: int) -> Recipe:
    """The base recipe with an arm's phases; sequences, batch, peak and warm-up are the base's first phase's."""
    tree = base.model_dump(mode="json")
    model, rate = base.phases[0], base.phases[0].lr_scheduler
    tree["phases"] = [
        {
            "name": phase["name"], "tokens": phase["tokens"], "sequence_length": model.sequence_length,
            "global_batch_size": model.global_batch_size, "mixture": phase["mixture"],
            "mixture_block_size": 256, "max_epochs": 100,
            "lr_scheduler": {**phase["schedule"], "lr": rate.lr, "warmup": rate.warmup if number == 0 else 0},
        }
        for number, phase in enumerate(phases)
    ]  # fmt: skip
    tree["seed"] = seed
    tree["checkpoints"] = {"every": 10**12, "keep": 1}
    tree["validation"] = {"every": 10**12, "sequences_per_source": 64}
    tree["monitor"]["wandb"] = "off"
    tree["launch"]["cpu_ranks"] = 1
    return parse_recipe(tree)


def by_group(base: Recipe, bits_per_byte: Mapping[str, float]) -> dict[str, float]:
    """Mean over the general and over the domain sources."""
    groups: dict[str, list[float]] = {"general": [], "domain": []}
    for source, value in bits_per_byte.items():
        groups["general" if base.destinations[source] == "general" else "domain"].append(value)
    return {group: statistics.fmean(values) for group, values in groups.items()}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % confidence interval (Student's t)."""
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
    return statistics.fmean(values), T_95.get(len(values), 1.96) * spread


def table(scores: Scores, base: Recipe, tokens: int) -> str:
    """The result as Markdown: means with intervals, and differences to the two-phase arm paired by seed."""
    lines = [
        "| arm | general | domain | general, minus two phases | domain, minus two phases |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for arm, groups in scores.items():
        cells = ["{:.3f} ± {:.3f}".format(*interval(groups[group])) for group in ("general", "domain")]
        for group in ("general", "domain"):
            paired = [a - b for a, b in zip(groups[group], scores["two phases"][group], strict=True)]
            cells.append("–" if arm == "two phases" else "{:+.3f} ± {:.3f}".format(*interval(paired)))
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    seeds = len(next(iter(scores.values()))["general"])
    head = (
        f"Bits per byte on held-out text: mean and 95 % interval over {seeds} seeds. Every arm trains a model of width "
        f"{base.model.d_model} with {base.model.n_layers} layers and a vocabulary of {base.tokenizer.vocab_size:,} on "
        f"{tokens:,} tokens. Lower is better; a positive difference means that two phases are better."
    )
    return "\n".join((head, "", *lines))


def _trained(recipe: Recipe, shards: Artifact, tokenizer: Artifact, out: Path) -> dict[str, float]:
    summary = out / "summary.json"
    if not summary.exists():
        out.mkdir(parents=True, exist_ok=True)
        training.train(recipe, shards, tokenizer, out)
    counts = json.loads(summary.read_text(encoding="utf-8"))
    found: dict[str, float] = counts["phases"][-1]["bits_per_byte"]
    return found


def _write_docs(folder: Path, text: str, scores: Scores) -> None:
    rows = {f"{group}: {arm}": groups[group] for group in ("general", "domain") for arm, groups in scores.items()}
    with atomic_path(folder / "two-phases.svg") as path:
        path.write_text(plots.dots(rows, "bits per byte, one dot per seed, line at the mean"), encoding="utf-8")
    with atomic_path(folder / "two-phases.md") as path:
        path.write_text(f"# What two phases gain\n\n{text}\n\n{_CAVEAT}\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="python -m benchmarks.two_phases", description=__doc__.splitlines()[0])
    options.add_argument("--recipe", type=Path, default=Path("configs/corpus.yaml"))
    options.add_argument("overrides", metavar="key=value", nargs="*", help="of the recipe: a smaller model, say")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--tokens", type=int, default=2_000_000, help="in each arm")
    options.add_argument("--json", type=Path, metavar="OUT", help="write the result here")
    options.add_argument("--docs", type=Path, metavar="DIR", help="write two-phases.md and .svg there")
    return options.parse_args()


if __name__ == "__main__":
    main()
