"""Our training step on one device, measured inside the trainer that users run.

Contract: `measure` runs `pretrain.train` itself (data order, shards, prefetch, ZeRO-3 engine, optimizer, loss,
spike guard, batch hash, metrics.jsonl) and stops it after the case's steps. Three names in it are replaced: the
engine by one that also looks at clock and memory, checkpoints by ones that save nothing, and the first weights
by equally distributed ones drawn on the device (half a minute of a CPU's time for 3.5 billion). A step's
seconds are those from one line of metrics.jsonl to the next, so monitoring is in them.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import gpu_account, gpu_cases, gpu_data
from benchmarks.gpu_cases import Case
from benchmarks.gpu_device import Memory, Stopwatch
from configs.recipe import dump_recipe
from configs.schema import Model, Recipe
from pretrain import train
from pretrain.engine.distributed import Ranks
from pretrain.engine.zero3 import Engine
from pretrain.hooks.metrics import METRICS_FILE, read_events
from pretrain.layout import ERROR_FILE
from pretrain.model.decoder import parameter_shapes
from pretrain.model.sizes import n_parameters
from twofold.exit_codes import EXIT_CODE_STOPPED


def measure(case: Case, shared: Path, folder: Path, peak_tflops: float | None) -> dict[str, Any]:
    """Figures of the case; with `case.part` "account", the account of two steps. Shards are kept in `shared`."""
    recipe = gpu_cases.recipe(case, folder)
    data, tokenizer = gpu_data.write(case, shared)
    out, recipe_file = folder / "train", folder / "recipe.yaml"
    out.mkdir(parents=True)
    recipe_file.write_text(dump_recipe(recipe), encoding="utf-8")
    watched = _replace_names(case)
    arguments = ["--recipe", recipe_file, "--shards", data, "--tokenizer", tokenizer, "--out", out]
    code = train.main([*map(str, arguments), "--device", case.device, "--stop-after-step", str(case.all_steps)])
    if code != EXIT_CODE_STOPPED:
        raise RuntimeError(_reason(out) or f"training ended with {code}")
    engine = watched[0]
    events = [event for event in read_events(out / METRICS_FILE) if event["event"] == "train"]
    found: dict[str, Any] = {"case": case.as_json(), "losses": [event["loss"] for event in events]}
    if engine.account:
        return found | engine.account.result()
    ends = [event["seconds"] for event in events]
    seconds = [end - begin for begin, end in itertools.pairwise(ends)][-case.steps :]
    return found | gpu_cases.figures(case, seconds, peak_tflops) | engine.figures(recipe)


def _reason(out: Path) -> str:
    """What the trainer said that its user can fix."""
    file = out / ERROR_FILE
    problems = json.loads(file.read_text(encoding="utf-8"))["problems"] if file.exists() else []
    return "; ".join(f"{p['field']} = {p['value']}: {p['problem']}" for p in problems)


def _replace_names(case: Case) -> list[WatchedEngine]:
    """Put ours in the place of what `pretrain.train` imported; the engine will be in the list once it is made."""
    made: list[WatchedEngine] = []

    def engine(recipe: Recipe, ranks: Ranks) -> WatchedEngine:
        made.append(WatchedEngine(recipe, ranks, case))
        return made[0]

    def weights(cfg: Model, vocab_size: int, seed: int) -> Iterator[tuple[str, Tensor]]:
        return drawn_on_device(cfg, vocab_size, seed, case.device)

    replaced: dict[str, Callable[..., Any]] = {
        "Engine": engine, "Checkpoints": NothingSaved, "initial_weights": weights,
    }  # fmt: skip
    for name, value in replaced.items():
        assert hasattr(train, name), name
        setattr(train, name, value)
    return made


def drawn_on_device(cfg: Model, vocab_size: int, seed: int, device: str) -> Iterator[tuple[str, Tensor]]:
    """As pretrain.model.decoder.initial_weights, of the same distribution, drawn where they are used."""
    generator = torch.Generator(device).manual_seed(seed)
    for name, shape in parameter_shapes(cfg, vocab_size).items():
        if len(shape) == 1:
            yield name, torch.ones(shape, device=device)
            continue
        into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        std = cfg.init_std / math.sqrt(2 * cfg.n_layers) if into_residual else cfg.init_std
        yield name, torch.empty(shape, device=device).normal_(0.0, std, generator=generator)


class WatchedEngine(Engine):
    """The engine; it notes seconds and memory of its two halves of a step, and profiles two steps when asked to."""

    def __init__(self, recipe: Recipe, ranks: Ranks, case: Case) -> None:
        self._case = case
        self._memory = Memory(case.device)
        self.account = (
            gpu_account.Account(case.device, first_step=case.warmup, steps=2) if case.part == "account" else None
        )
        self._passes, self._updates = Stopwatch(case.device), Stopwatch(case.device)
        self._stages: dict[str, int] = {"before_engine": self._memory.allocated()}
        self._update = ExitStack()
        super().__init__(recipe, ranks)
        self._stages["after_engine"] = self._memory.allocated()

    def set_weights(self, weights: Any) -> None:
        super().set_weights(weights)
        self._stages["after_weights"] = self._memory.allocated()

    def accumulate(self, *arguments: Any, **options: Any) -> tuple[float, float]:
        if self.account:
            self.account.step_begins()
        with self._labelled("passes"), self._watching("accumulate", self._passes):
            return super().accumulate(*arguments, **options)

    def grad_norm(self) -> float:
        """The first part of an update; `step` ends it, since no step of a benchmark is skipped."""
        self._update.enter_context(self._labelled("update"))
        self._update.enter_context(self._watching("apply", self._updates))
        return super().grad_norm()

    def step(self, lr: float) -> None:
        super().step(lr)
        self._update.close()

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """Nothing: nothing is saved."""
        return {}

    def figures(self, recipe: Recipe) -> dict[str, Any]:
        """Medians over the measured steps, and memory after each half of the first steps."""
        count = self._case.steps
        passes, updates = self._passes.seconds()[-count:], self._updates.seconds()[-count:]
        return {
            "micro_batch_seconds": statistics.median(passes) / self._case.accumulation,
            "update_seconds": statistics.median(updates),
            "parameters": n_parameters(recipe.model, recipe.tokenizer.vocab_size),
            "kernels": self.kernels.describe(),
            "memory_stages_bytes": self._stages, **self._memory.peaks(),
        }  # fmt: skip

    def _labelled(self, label: str) -> AbstractContextManager[Any]:
        return self.account.label(label) if self.account else nullcontext()

    def _watching(self, half: str, watch: Stopwatch) -> AbstractContextManager[Any]:
        number = len(watch)
        if number >= 3:
            return watch.timed()
        return self._memory.staged(self._stages, f"step_{number + 1}_{half}", watch.timed())


class NothingSaved:
    """Stands for checkpoints that are never written nor found."""

    pending = None
    is_written = False

    def __init__(self, _root: Path, _keep: int, identity: Any, *_: Any) -> None:
        self.identity = identity

    def newest(self, *_: Any, **__: Any) -> None:
        return None

    def begin(self, *_: Any) -> None:
        """Nothing is written."""
