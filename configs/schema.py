"""A recipe: every section typed, frozen and strict.

Contract: a `Recipe` that exists is valid in each field and in each section; `checks.check_recipe`
judges combinations across sections. No field reads the clock, the machine or a file. Counts are
64-bit and in tokens unless the name says otherwise. Sections are in the order of the data's way; those
of the data pipeline are in configs/data_schema.py, phases in configs/phase_schema.py, what starts and
watches the ranks in configs/launch_schema.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from configs.data_schema import Data, Source
from configs.launch_schema import Launch, Watch
from configs.phase_schema import Phase, with_replay
from configs.types import Count, CountOrZero, Name, NonNegative, Positive, Section, Share, as_tuple
from configs.units import Bytes, Tokens, invalid

# --- tokenizer ---------------------------------------------------------------------------------


class Tokenizer(Section):
    """Byte-level BPE."""

    vocab_size: Count = 102_400
    """Ids in all: specials and reserved slots, 256 bytes, merges."""
    allow_smaller: bool = False
    """Where the documents support fewer merges, make the ids that are left reserved slots, instead of refusing."""
    pattern: Literal["exaone3", "exaone3-code", "plain"] = "exaone3-code"
    """Pre-tokenisation: single digits + GPT-2's regex; the one that keeps code cheap; Llama 3's."""
    morphemes: Literal["none", "mecab"] = "none"
    """`mecab`: no merge crosses a border of Korean morphemes in training, as in EXAONE 3.0. Encoding needs no MeCab."""
    superwords: Annotated[Share, Field(lt=1)] = 0.1
    """Share of the merges that are learnt last, across words (SuperBPE); none where another pattern or morphemes are
    asked for (docs/tokenizer-ablation.md, docs/log.md)."""
    reserved_ids: CountOrZero = 360
    """Unused special slots after pad, bos, eos and unk, for later phases of training."""
    sample_bytes_per_source: Bytes = 2_000_000_000
    """Train on at most this much of each source's kept text."""
    weights: dict[Name, Positive] = Field(default_factory=dict)
    """Share of each source or route in the mixture that merges are learnt from; without any, as much as is sampled."""
    max_words: Count = 10_000_000
    """Distinct words that merges are learnt from, the most frequent; each takes some 400 bytes of memory."""

    @model_validator(mode="before")
    @classmethod
    def _superwords_by_pattern(cls, said: Any) -> Any:
        """The default goes with the default pattern only."""
        if isinstance(said, dict):
            chosen = said.get("pattern", "exaone3-code"), said.get("morphemes", "none")
            return said if chosen == ("exaone3-code", "none") else {"superwords": 0.0, **said}
        return said

    @model_validator(mode="after")
    def _superwords_fit(self) -> Tokenizer:
        if self.superwords and self.pattern != "exaone3-code":
            raise invalid(
                f"has superwords {self.superwords} with the pattern {self.pattern}",
                "use the pattern exaone3-code, or superwords 0",
            )
        if self.superwords and self.morphemes != "none":
            raise invalid(
                f"has superwords {self.superwords} with morphemes {self.morphemes}, whose borders they would cross",
                "use morphemes none, or superwords 0",
            )
        return self


# --- model -------------------------------------------------------------------------------------


class Model(Section):
    """EXAONE 3.0's decoder (pre-norm RMSNorm, SwiGLU, grouped-query attention, rotary)."""

    d_model: Count
    n_layers: Count
    n_heads: Count
    n_kv_heads: Count
    d_ff: Count
    max_sequence_length: Count = 4096
    """Tokens."""
    rope_theta: Positive = 500_000.0
    norm_eps: Positive = 1e-5
    init_std: Positive = 0.02
    start_from: str | None = None
    """A Llama-format checkpoint folder to continue from; None starts from seeded random weights."""
    start_at_phase: Name | None = None
    """The phase that a run with `start_from` begins at; earlier ones count as done. None: the first."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.d_model % self.n_heads:
            raise invalid(
                f"has d_model {self.d_model}, which n_heads {self.n_heads} does not divide",
                "make d_model a multiple of n_heads",
            )
        if (self.d_model // self.n_heads) % 2:
            raise invalid(
                f"has heads of odd size {self.d_model // self.n_heads}; rotary embedding turns pairs",
                "make d_model / n_heads even",
            )
        if self.n_heads % self.n_kv_heads:
            raise invalid(
                f"has n_heads {self.n_heads}, which n_kv_heads {self.n_kv_heads} does not divide",
                "make n_heads a multiple of n_kv_heads",
            )
        return self

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads


# --- training ----------------------------------------------------------------------------------


class Optimizer(Section):
    """AdamW; weight decay on matrices only (not on norms and embeddings)."""

    betas: Annotated[tuple[Share, Share], BeforeValidator(as_tuple)] = (
        0.9,
        0.95,
    )
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.1
    max_grad_norm: Positive = 1.0
    """Largest global gradient norm."""


class Engine(Section):
    """How DeepSpeed ZeRO-3 runs the model; its whole configuration is derived from this."""

    precision: Literal["bf16", "fp32"] = "bf16"
    micro_batch_size: Count
    """Sequences a rank in one forward and backward pass; the rest of the batch is accumulated."""
    activation_checkpointing: bool | Literal["selective"] = False
    """Recompute each block's activations in the backward pass; `selective` keeps matrix products and attention."""
    backend: Literal["auto", "plain"] = "auto"
    """`auto`: the fastest way of each part that the device has (on a CPU the plain one, but
    products in float32 where it has no bf16 instructions); `plain`: the reference."""
    float8: bool = False
    """Matrix products of the blocks in float8; needs compute capability 8.9 (H100)."""
    deterministic: bool = False
    """The same bits from run to run on a GPU, too, for proofs: slower kernels, and an error where there is none."""
    persistence_threshold: CountOrZero = 100_000
    """Parameters smaller than this stay whole on every rank (ZeRO-3)."""
    bucket_elements: Count = 500_000_000
    """Largest reduce and prefetch bucket."""
    deepspeed: dict[str, Any] = Field(default={})
    """Merged over the derived configuration, for what no field says; pretrain/engine/ds_lint.py checks it."""


class Checkpoints(Section):
    """When training state is saved; the end of a phase always is, and is kept for good."""

    every: Tokens
    every_minutes: Positive | None = None
    """Also when so much time has passed since the last one (rank 0's clock)."""
    keep: Count = 2
    """Newest checkpoints kept beside the phase ends."""


class Stability(Section):
    """What happens to a step whose loss or gradient norm stands out from those before it."""

    spikes: Literal["off", "skip", "rollback"] = "rollback"
    """`skip` drops the update; `rollback` also returns to a checkpoint when skipping does not help."""
    rolling_interval_length: Count = 128
    """Accepted steps of the phase that a step is compared with; nothing is judged before half of it."""
    sigma_factor: Positive = 6.0
    """Robust standard deviations above the median that make a spike."""
    rollback_after: Count = 4
    """Bad steps in a row before a rollback; as many steps before the first of them are skipped, too."""
    attempts: Count = 3
    """Rollbacks within one such interval of steps before training gives up."""


class Validation(Section):
    """Bits per byte on held-out shards, by source, and what the model says."""

    every: Tokens
    sequences_per_source: Count = 64
    prompts: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """Continued greedily at every validation, into the metrics file and W&B."""
    new_tokens: Count = 24


class Monitor(Section):
    """W&B beside the local JSON Lines file; neither can stop training."""

    project: Name = "twofold"
    wandb: Literal["auto", "offline", "off"] = "auto"
    """`auto`: online where a key is configured, else offline."""
    log_every_steps: Count = 1
    peak_tflops: Positive | None = None
    """Peak of one device for MFU (H100 dense bf16: 989); None where it is not known (CPU)."""


class Export(Section):
    """The final Llama-format checkpoint and what it is asked to say."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    prompts: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    new_tokens: Count = 48


class Recipe(Section):
    """One recipe, one run."""

    name: Name
    seed: CountOrZero
    run_dir: Annotated[str, Field(min_length=1)]
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    data: Data
    tokenizer: Tokenizer
    model: Model
    phases: Annotated[
        tuple[Phase, ...],
        BeforeValidator(as_tuple),
        Field(min_length=1),
        AfterValidator(with_replay),
    ]
    optimizer: Optimizer = Optimizer()
    engine: Engine
    checkpoints: Checkpoints
    stability: Stability = Stability()
    validation: Validation
    monitor: Monitor = Monitor()
    export: Export = Export()
    launch: Launch = Launch()
    watch: Watch = Watch()

    @model_validator(mode="after")
    def _starts_at_a_phase(self) -> Recipe:
        phase = self.model.start_at_phase
        if phase is None:
            return self
        if phase not in [one.name for one in self.phases]:
            raise invalid(f"has model.start_at_phase {phase}, which is no phase", "name one of `phases`")
        if self.model.start_from is None:
            raise invalid(
                f"starts at phase {phase} with random weights", "give model.start_from, or remove model.start_at_phase"
            )
        return self

    @property
    def destinations(self) -> dict[str, str]:
        """Where kept documents can go, and what phases can mix: every source and route -> its domain."""
        routes = {name: route.domain for name, route in self.data.routes.items()}
        return {**{name: source.domain for name, source in self.sources.items()}, **routes}
