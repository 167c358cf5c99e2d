"""What the GPU benchmark runs: cases, their recipes, and the arithmetic from few layers to 32. No torch.

Contract: pure. A `Case` is everything that one measuring process needs, travels as JSON, and names itself.
Shapes are those of configs/exaone3_7p8b.yaml, whose layers are what is measured; only their number is cut.

Arithmetic, all of it measured or derived, never published:
    bytes       ZeRO-3 on one rank keeps 18 bytes a parameter (bf16 weight 2, float32 master 4, moments 8,
                summed gradient 4); what comes on top is only the search's first guess
    seconds     a micro-batch costs a + b x layers: a is embedding, head and loss, b one layer. Two numbers
                of layers give both, and with them the whole model's step
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from configs.recipe import load_recipe, parse_recipe
from configs.schema import Model, Recipe
from pretrain.model.sizes import flops_per_token, n_parameters

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "configs" / "exaone3_7p8b.yaml"
FULL_LAYERS = 32
STATE_BYTES_PER_PARAMETER = 18
SPARE_STEPS = 2
"""Steps of the plan after the last one that is made: the end of a phase would write weights."""


@dataclass(frozen=True)
class Case:
    """One process: who trains what, how, and how often."""

    contestant: str
    """ours, plain, transformers, peaks."""
    device: str = "cuda"
    tiny: bool = False
    """Toy shapes, to try the benchmark itself."""
    layers: int = FULL_LAYERS
    micro_batch: int = 2
    """Sequences in one forward and backward pass."""
    sequences: int = 16
    """In a step; micro-batches are accumulated until they are reached."""
    recompute: bool | str = False
    """Activation checkpointing of each block: all of it, or only what is cheap ("selective", ours alone)."""
    precision: str = "bf16"
    """bf16, or float8 for the blocks' linear layers."""
    masked: bool = False
    """Attention within documents only."""
    backend: str = "auto"
    """Ours: auto or plain."""
    masters: str = "float32"
    """Plain PyTorch: float32 (bf16 weights, float32 masters and sums), autocast (float32 weights), none (all bf16)."""
    warmup: int = 3
    steps: int = 5
    """Measured, after `warmup`."""
    part: str = ""
    """"account" profiles two steps instead of measuring; "memory" is measured for its bytes."""

    @property
    def name(self) -> str:
        """Short, unique among cases that differ in what is compared."""
        if self.contestant == "peaks":
            return self.contestant
        words = [self.contestant, self.precision, f"{self.layers} layers", f"{self.micro_batch} a micro-batch"]
        words += (
            [f"recomputed {self.recompute}" if self.recompute == "selective" else "recomputed"]
            if self.recompute
            else []
        )
        words += ["documents masked"] if self.masked else []
        words += [f"backend {self.backend}"] if self.backend != "auto" else []
        words += [f"masters {self.masters}"] if self.contestant == "plain" and self.masters != "float32" else []
        words += [self.part] if self.part else []
        return ", ".join(words)

    @property
    def accumulation(self) -> int:
        """Micro-batches a step."""
        return self.sequences // self.micro_batch

    @property
    def all_steps(self) -> int:
        return self.warmup + self.steps

    @property
    def tokens_per_step(self) -> int:
        return self.accumulation * self.micro_batch * self.sequence_length

    @property
    def sequence_length(self) -> int:
        return 64 if self.tiny else 4096

    @property
    def vocab_size(self) -> int:
        return 512 if self.tiny else 102_400

    def model(self, layers: int | None = None) -> Model:
        """The model's section of a recipe."""
        shape = {"d_model": 64, "n_heads": 4, "n_kv_heads": 2, "d_ff": 128, "max_sequence_length": 64}
        return Model.model_validate(
            _shipped_model() | (shape if self.tiny else {}) | {"n_layers": layers or self.layers}
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Case:
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in found.items() if key in known})


@functools.lru_cache(maxsize=1)
def _shipped_model() -> dict[str, Any]:
    return load_recipe(SHIPPED).model.model_dump()


def recipe(case: Case, run_dir: Path) -> Recipe:
    """The shipped 7.8 B recipe with fewer layers, on one device, for as many steps as the case has.

    Raises `UserError` where the recipe does not know what the case asks for.
    """
    tree = load_recipe(SHIPPED).model_dump(mode="json")
    phase = tree["phases"][0] | {
        "sequence_length": case.sequence_length, "global_batch_size": case.tokens_per_step, "rampup_batch_size": [],
        "tokens": (case.all_steps + SPARE_STEPS) * case.tokens_per_step, "max_epochs": 1e6, "mixture_block_size": 100,
        "lr_scheduler": {"lr": 3e-4}, "intra_document_masking": case.masked,
    }  # fmt: skip
    engine = tree["engine"] | {"micro_batch_size": case.micro_batch, "activation_checkpointing": case.recompute}
    engine |= {"float8": case.precision == "float8", "backend": case.backend}
    tree |= {
        "phases": [phase], "model": case.model().model_dump(mode="json"), "engine": engine, "run_dir": str(run_dir),
        "launch": {"device": case.device, "cpu_ranks": 1, "gpus_per_node": 1, "nodes": 1},
    }  # fmt: skip
    tree["tokenizer"] |= {"vocab_size": case.vocab_size, "reserved_ids": 60}
    tree["checkpoints"] |= {"every": 10**12, "every_minutes": None}
    tree["validation"] |= {"every": 10**12, "sequences_per_source": 1, "prompts": []}
    tree["monitor"] |= {"wandb": "off"}
    return parse_recipe(tree)


def guessed_layers(case: Case, memory_bytes: int) -> int:
    """The most layers whose state, working buffers and activations should fit into a device's memory."""
    room = 0.94 * memory_bytes - 3e9  # the context, the allocator's rounding
    head_bytes = case.micro_batch * case.sequence_length * case.vocab_size * 10  # logits in bf16 and float32, gradient

    def needed(layers: int) -> float:
        parameters = n_parameters(case.model(layers), case.vocab_size)
        buffers = 4 * (min(parameters, 1e9) + min(parameters, 5e8))  # one sub-group's gradients, one bucket
        return STATE_BYTES_PER_PARAMETER * parameters + buffers + head_bytes + layers * _layer_bytes(case)

    fitting = [layers for layers in range(1, FULL_LAYERS + 1) if needed(layers) <= room]
    return fitting[-1] if fitting else 1


def bytes_per_layer(case: Case) -> float:
    """State and activations of one layer."""
    one, two = (n_parameters(case.model(layers), case.vocab_size) for layers in (1, 2))
    return STATE_BYTES_PER_PARAMETER * (two - one) + _layer_bytes(case)


def _layer_bytes(case: Case) -> float:
    """Activations that one layer keeps for its backward pass: bf16 inputs of every product and norm."""
    model = case.model(1)
    kept = model.d_model if case.recompute else 9 * model.d_model + 4 * model.d_ff
    return 2.0 * case.micro_batch * case.sequence_length * kept


Outcome = Mapping[str, Any]
"""A case's result: `error` where it failed, else its figures, among them `peak_reserved_bytes`."""


def most_layers(guess: int, memory_bytes: int, layer_bytes: float, run: Callable[[int], Outcome]) -> int | None:
    """The number of layers that fits, from a guess: down while memory runs out, up once where much is left.

    `run(layers)` tries in a fresh process. None where nothing ran, or failed for another reason.
    """
    layers = guess
    while layers:
        outcome = run(layers)
        if "error" not in outcome:
            break
        if not out_of_memory(outcome["error"]):
            return None
        layers -= max(1, layers // 8)
    if not layers:
        return None
    more = int((0.97 * memory_bytes - outcome["peak_reserved_bytes"]) / layer_bytes) if layers == guess else 0
    if more > 0 and "error" not in run(min(FULL_LAYERS, layers + more)):
        return min(FULL_LAYERS, layers + more)
    return layers


def out_of_memory(message: str) -> bool:
    """Whether an error says that the device's memory is full."""
    lower = message.lower()
    return any(words in lower for words in ("out of memory", "outofmemory", "alloc_failed"))


def figures(case: Case, seconds: Sequence[float], peak_tflops: float | None) -> dict[str, Any]:
    """Speed from the seconds of each measured step: their median, and how far they lie apart."""
    middle = statistics.median(seconds)
    flops = flops_per_token(case.model(), case.vocab_size, case.sequence_length)
    rate = case.tokens_per_step / middle
    shares = {
        name: rate * flops[convention] / (peak_tflops * 1e12) if peak_tflops else None
        for name, convention in (("mfu", "full"), ("mfu_causal", "causal"))
    }
    return {
        "tps": rate, "step_seconds": middle, "tokens_per_step": case.tokens_per_step,
        "step_seconds_all": [round(value, 6) for value in seconds], **shares,
        "tflops_full_attention": rate * flops["full"] / 1e12, "tflops_causal_attention": rate * flops["causal"] / 1e12,
    }  # fmt: skip


def projection(few: Outcome, more: Outcome, peak_tflops: float | None, layers: int = FULL_LAYERS) -> dict[str, Any]:
    """The step of the whole model from those of two numbers of layers; no communication in it.

    Each outcome holds its `case`, `micro_batch_seconds` (forward and backward) and `update_seconds`. The update
    is divided by the ranks that would share it: 1 says what this step would cost without sharing.
    """
    first, second = Case.from_json(few["case"]), Case.from_json(more["case"])
    assert first.layers < second.layers, (first.layers, second.layers)
    slope = (more["micro_batch_seconds"] - few["micro_batch_seconds"]) / (second.layers - first.layers)
    rest = few["micro_batch_seconds"] - slope * first.layers
    whole = replace(second, layers=layers)
    parameters = {case.layers: n_parameters(case.model(), case.vocab_size) for case in (first, second, whole)}
    update_slope = (more["update_seconds"] - few["update_seconds"]) / (
        parameters[second.layers] - parameters[first.layers]
    )
    update = max(0.0, more["update_seconds"] + update_slope * (parameters[layers] - parameters[second.layers]))
    passes = whole.accumulation * (rest + slope * layers)
    return {
        "layers": layers, "layer_seconds": slope, "embedding_head_loss_seconds": rest,
        "rest_share_here": rest / more["micro_batch_seconds"], "rest_share_projected": rest / (rest + slope * layers),
        "update_seconds_one_rank": update, "communication": "not run",
        "by_ranks_sharing_the_update": {
            str(ranks): figures(whole, [passes + update / ranks], peak_tflops) for ranks in (1, 8, 512)
        },
    }  # fmt: skip
