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

    vocab_size: Tokens = 102_400
    """Total number of ids: special tokens, reserved slots, 256 bytes, merges."""
    allow_smaller: bool = False
    """If the documents support fewer merges, turn the remaining ids into reserved slots instead of failing."""
    pattern: Literal["exaone3", "exaone3-code", "plain"] = "exaone3-code"
    """Pre-tokenization: single digits and GPT-2's regex; K-EXAONE's, cheaper for code; Llama 3's (docs/export.md)."""
    morphemes: Literal["none", "mecab"] = "none"
    """`mecab`: no merge crosses a Korean morpheme border in training, as in EXAONE 3.0. Encoding needs no MeCab."""
    superwords: Annotated[Share, Field(lt=1)] = 0.1
    """Share of the merges that are learned last, across words (SuperBPE). 0 with other patterns or with morphemes
    (docs/tokenizer-ablation.md, docs/log.md)."""
    reserved_ids: CountOrZero = 360
    """Unused special slots after pad, bos, eos and unk, for later phases of training."""
    sample_bytes_per_source: Bytes = 2_000_000_000
    """Train on at most this much of each source's kept text. Example: `4GB`."""
    weights: dict[Name, Positive] = Field(default_factory=dict)
    """Share of each source or route in the text that merges are learned from; if empty, in proportion to the sample."""
    max_words: Count = 10_000_000
    """Distinct words that merges are learned from, most frequent first; each takes about 400 bytes of memory."""

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
    """EXAONE 3.0's decoder: pre-norm RMSNorm, SwiGLU, grouped-query attention, rotary embedding."""

    d_model: Count
    """Width of the residual stream. Example: `4096`."""
    n_layers: Count
    """Decoder blocks. Example: `32`."""
    n_heads: Count
    """Query heads. Example: `32`."""
    n_kv_heads: Count
    """Key and value heads, shared by groups of query heads. Example: `8`."""
    d_ff: Count
    """Width of the feed-forward layer. Example: `14336`."""
    max_sequence_length: Count = 4096
    """Longest sequence, in tokens."""
    rope_theta: Positive = 500_000.0
    """Base of the rotary embedding."""
    norm_eps: Positive = 1e-5
    """Epsilon of RMSNorm."""
    init_std: Positive = 0.02
    """Standard deviation of the initial weights."""
    start_from: str | None = None
    """Folder of a Llama-format checkpoint to continue from; null starts from seeded random weights."""
    start_at_phase: Name | None = None
    """Phase that a run with `start_from` begins with; earlier ones count as done. Null: the first."""

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


NO_TOKENIZER = Tokenizer(vocab_size=1)
NO_MODEL = Model(d_model=2, n_layers=1, n_heads=1, n_kv_heads=1, d_ff=1)
"""What a recipe has that leaves out the sections `tokenizer` or `model`: it prepares documents, or shards, only."""


# --- training ----------------------------------------------------------------------------------


class Optimizer(Section):
    """AdamW, with weight decay on matrices only (not on norms and embeddings)."""

    betas: Annotated[tuple[Share, Share], BeforeValidator(as_tuple)] = (0.9, 0.95)
    """Decay rates of Adam's two moments."""
    eps: Positive = 1e-8
    """Adam's epsilon."""
    weight_decay: NonNegative = 0.1
    """Decoupled weight decay, for matrices only."""
    max_grad_norm: Positive = 1.0
    """Largest global gradient norm; larger gradients are scaled down."""


class Engine(Section):
    """How DeepSpeed ZeRO-3 runs the model. DeepSpeed's whole configuration is derived from this section."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of weights and activations; master weights and sums are always float32."""
    micro_batch_size: Count = 1
    """Sequences per rank in one forward and backward pass; the rest of the batch is accumulated. One always works, and
    is slow; `twofold plan RECIPE --gpus N` finds what the memory holds. Example: `8`."""
    activation_checkpointing: bool | Literal["selective"] = False
    """Recompute each block in the backward pass; `selective` keeps matrix products and attention."""
    backend: Literal["auto", "plain"] = "auto"
    """`plain` is the reference. `auto` uses the fastest version of each part for the device (on CPUs the plain
    one, with products in float32 if there are no bf16 instructions)."""
    float8: bool = False
    """Run the blocks' matrix products in float8; needs compute capability 8.9 (H100)."""
    deterministic: bool = False
    """Give the same bits from run to run on a GPU, for proofs; slower, and an error where no such kernel exists."""
    persistence_threshold: CountOrZero = 100_000
    """Parameters with fewer elements stay whole on every rank (ZeRO-3)."""
    bucket_elements: Count = 500_000_000
    """Elements of the largest reduce and prefetch bucket."""
    deepspeed: dict[str, Any] = Field(default={})
    """Merged over the derived configuration, for what no field covers; known traps are refused
    (pretrain/engine/ds_lint.py). Example: `{wall_clock_breakdown: true}`."""


class Checkpoints(Section):
    """When training state is saved. The end of a phase is always saved, and kept for good."""

    every: Tokens = 1_000_000_000
    """Tokens between checkpoints. Example: `8B`."""
    every_minutes: Positive | None = None
    """Also save when this much time has passed since the last checkpoint (rank 0's clock)."""
    keep: Count = 2
    """Newest checkpoints to keep besides the phase ends."""


class Stability(Section):
    """What happens to a step whose loss or gradient norm is far above those before it."""

    spikes: Literal["off", "skip", "rollback"] = "rollback"
    """`skip` drops the update of a bad step; `rollback` also returns to a checkpoint if skipping does not help."""
    rolling_interval_length: Count = 128
    """Accepted steps of the phase that a step is compared with; nothing is judged before half of them."""
    sigma_factor: Positive = 6.0
    """Robust standard deviations above the median that make a spike."""
    rollback_after: Count = 4
    """Bad steps in a row before a rollback, which also skips as many steps before the first of them."""
    attempts: Count = 3
    """Rollbacks within one interval before training gives up."""


class Validation(Section):
    """Bits per byte on held-out shards by source, and continuations of prompts."""

    every: Tokens = 1_000_000_000
    """Tokens between validations. Example: `4B`."""
    sequences_per_source: Count = 64
    """Held-out sequences per source."""
    prompts: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """Continued greedily at every validation, into the metrics file. Example: `["The history of"]`. End a
    prompt with its last word: words begin with their blank, so after one only a digit or a sign can follow."""
    new_tokens: Count = 24
    """Tokens to generate per prompt."""


class Monitor(Section):
    """The metrics file, and W&B beside it, which is off unless the recipe asks for it and can never stop training."""

    project: Name = "twofold"
    """W&B project."""
    wandb: Literal["off", "auto", "offline"] = "off"
    """Send numbers, alerts and the recipe to W&B, but no text. `auto`: online if a key is configured, else offline."""
    log_every_steps: Count = 1
    """Steps between lines of the metrics file."""
    peak_tflops: Positive | None = None
    """Peak of one device, for MFU (H100 dense bf16: 989); null if unknown (CPU)."""


class Export(Section):
    """The final Llama-format checkpoint, and sample continuations from it."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the exported weights."""
    prompts: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """Continued by the exported model, into `samples.json`; see `validation.prompts`."""
    new_tokens: Count = 48
    """Tokens to generate per prompt."""


class Recipe(Section):
    """A recipe describes one run."""

    name: Name
    """Name of the run. Example: `smoke`."""
    seed: CountOrZero
    """Seeds weights, data order and samples. Example: `20240807`."""
    run_dir: Annotated[str, Field(min_length=1)]
    """Folder for everything that the run writes. Example: `runs/smoke`."""
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    """Source name to raw documents."""
    data: Data
    """How documents are filtered."""
    tokenizer: Tokenizer = NO_TOKENIZER
    """How the tokenizer is trained; without it, the run ends with the documents that were kept."""
    model: Model = NO_MODEL
    """Shape of the model and where its weights come from; goes with `phases`."""
    phases: Annotated[tuple[Phase, ...], BeforeValidator(as_tuple), AfterValidator(with_replay)] = ()
    """Phases of training, in order; without them, the run ends with the token shards."""
    optimizer: Optimizer = Optimizer()
    """AdamW's settings."""
    engine: Engine = Engine()
    """How DeepSpeed runs the model."""
    checkpoints: Checkpoints = Checkpoints()
    """When training state is saved."""
    stability: Stability = Stability()
    """How loss spikes are handled."""
    validation: Validation = Validation()
    """What is measured on held-out text."""
    monitor: Monitor = Monitor()
    """Metrics and W&B."""
    export: Export = Export()
    """The final model's format and samples."""
    launch: Launch = Launch()
    """Devices, launcher and restarts."""
    watch: Watch = Watch()
    """Watchdog and straggler detection."""

    @model_validator(mode="after")
    def _training_is_complete(self) -> Recipe:
        sections = {"tokenizer": self.tokenizes, "model": self.model != NO_MODEL}
        missing = [name for name, given in sections.items() if not given]
        if self.phases and missing:
            raise invalid(f"has phases but no {' and no '.join(missing)}", f"add the section {missing[0]}")
        if sections["model"] and not self.phases:
            raise invalid("has a model but no phases", "add `phases` to train it, or remove `model`")
        return self

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
    def tokenizes(self) -> bool:
        """Whether the run has a tokenizer and token shards, rather than documents only."""
        return self.tokenizer != NO_TOKENIZER

    @property
    def destinations(self) -> dict[str, str]:
        """Where kept documents can go, and what phases can mix: every source and route -> its domain."""
        routes = {name: route.domain for name, route in self.data.routes.items()}
        return {**{name: source.domain for name, source in self.sources.items()}, **routes}
