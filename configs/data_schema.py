"""The sections of a recipe that the data pipeline reads: sources, extraction, rules, classifiers, policies.

Contract: as in configs/schema.py, which puts these into a `Recipe`. In the order of the data's way.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from configs.features import FEATURES
from configs.types import Count, CountOrZero, Name, Positive, Real, Section, Share, Strings, as_tuple
from configs.units import Bytes, invalid

Language = Literal["ko", "en"]
Domain = Literal["general", "law", "math", "code", "medicine", "science", "finance"]


# --- raw documents -----------------------------------------------------------------------------


class Source(Section):
    """One named set of raw documents on disk."""

    path: Annotated[str, Field(min_length=1)]
    """A file or a folder, local or any fsspec address (`s3://…`); folders are searched for the format's endings."""
    format: Literal["html", "warc", "jsonl", "parquet", "text"]
    domain: Domain = "general"
    languages: Annotated[tuple[Language, ...], BeforeValidator(as_tuple)] = (
        "ko",
        "en",
    )
    """Languages that belong here; documents in another one are dropped, with that reason."""
    kind: Literal["prose", "code"] = "prose"
    """`code` skips language identification and takes the `code` rules."""
    license: Annotated[str, Field(min_length=1)]
    """Of the source; a record's own `licence` or `license` field goes before it."""
    text_field: Annotated[str, Field(min_length=1)] = "text"
    """Where JSON Lines and Parquet records keep their text; a record without it may have `html`."""
    id_field: Annotated[str, Field(min_length=1)] = "id"
    max_bytes: Bytes = 2**62
    """Read at most this much text from the source (whole documents, in file order)."""

    @model_validator(mode="after")
    def _some_language(self) -> Source:
        if not self.languages:
            raise invalid("accepts no language", "list ko, en or both in `languages`")
        return self


# --- data pipeline -----------------------------------------------------------------------------


class Slurm(Section):
    """How datatrove's Slurm executor submits the data stages' tasks."""

    partition: Annotated[str, Field(min_length=1)]
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")] = "4:00:00"
    """Limit of one array job, [days-]hours:minutes:seconds."""
    cpus_per_task: Count = 1
    memory_per_cpu_gb: Count = 4
    sbatch: dict[str, str] = Field(default={})
    """Further `#SBATCH --key=value` lines."""


class Executor(Section):
    """Where the data stages run. Never part of an artifact's identity."""

    kind: Literal["local", "slurm", "ray"] = "local"
    workers: Count = 2
    """Tasks at once."""
    slurm: Slurm | None = None
    ray_address: str = "auto"
    """Of a running Ray cluster."""
    ray_memory_gb: Positive = 2.0
    """What Ray sets aside for a task, beside one processor."""
    poll_s: Positive = 5.0
    """How often a running Slurm job is asked for its progress."""

    @model_validator(mode="after")
    def _slurm_is_described(self) -> Executor:
        if self.kind == "slurm" and self.slurm is None:
            raise invalid("runs on Slurm without saying where", "add data.executor.slurm with its `partition`")
        return self


class Extract(Section):
    """Raw bytes -> one normalised text per document."""

    max_document_bytes: Bytes = 8_000_000
    """Longer documents (and longer lines of JSON) are rejected, counted and named."""
    broken_files: Literal["reject", "stop"] = "reject"
    fingerprint: Literal["content", "stat"] = "content"
    """How an input file is known again: SHA-256 of its bytes, or size and modification time (remote: entity tag)."""
    task_bytes: Bytes = 64_000_000
    """Raw bytes that one task reads, at least one file."""
    html: Literal["resiliparse", "trafilatura"] = "resiliparse"
    """Main-content extraction: fast, or better and several times slower."""
    unicode: Literal["NFC", "NFKC"] = "NFC"
    """NFKC also folds full-width and other compatibility forms; it damages mathematics and code."""


LineRule = Literal[
    "javascript", "policy", "boilerplate", "spam", "javascript_mentions", "no_terminal_punctuation", "few_words"
]


class Lines(Section):
    """Rules on single lines and runs, applied before anything is measured; every edit is recorded."""

    drop: Annotated[tuple[LineRule, ...], BeforeValidator(as_tuple)] = ("javascript", "policy", "boilerplate")
    """Rules of data_pipeline/features/line_rules.py whose lines go; the last three are opt-in."""
    shorten_runs: bool = True
    """Runs of ㅋ, ㅎ, ㅠ, ㅜ and of repeated emoji and marks are cut to two."""
    repeated_in_documents: Count | None = 50
    """A line or paragraph that stands in at least so many documents of a source goes; None: none does."""
    repeated_min_bytes: Count = 60
    """Of UTF-8; shorter lines and paragraphs are not counted: headings and stock phrases are no boilerplate."""


class Bound(Section):
    """Keep a document when min <= feature <= max."""

    min: Real | None = None
    max: Real | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Bound:
        if self.min is None and self.max is None:
            raise invalid("bounds nothing", "give min, max or both, or remove the rule")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise invalid(f"has min {self.min} above max {self.max}", "swap them")
        return self


def _known_features(value: Any) -> Any:
    for name in value if isinstance(value, dict) else ():
        if name not in FEATURES:
            raise invalid(f"has no feature {name!r}", f"use one of {', '.join(FEATURES)}")
    return value


Rules = Annotated[dict[str, Bound], BeforeValidator(_known_features)]


class RuleProfiles(Section):
    """Bounds on features, by the language detected, or for sources of kind `code`."""

    ko: Rules
    en: Rules
    code: Rules


class NearDuplicates(Section):
    """MinHash LSH over word n-grams; `num_buckets` x `hashes_per_bucket` hashes."""

    enabled: bool = True
    ngram_words: Count = 5
    num_buckets: Count = 14
    hashes_per_bucket: Count = 8


class Classifier(Section):
    """One fastText model, trained on JSON Lines (`text`, `label`, perhaps `split` and `lang`)."""

    train: Annotated[Strings, Field(min_length=1)]
    """Files or folders of labelled records; or `LABEL=PATH`, whose every record (or plain text file) has that
    label, so that documents sorted into folders can teach the router: `law=raw/law`, `math=raw/math`."""
    labels: dict[str, str] = Field(default={})
    """A record's label -> ours, where they differ; records with another label are left out and counted."""
    label_field: Annotated[str, Field(min_length=1)] = "label"
    most_per_entry: Count = 20_000
    """Of each label in each entry of `train` at most so many texts, picked by a hash; bounds memory and evens out."""
    held_out_share: Annotated[float, Field(ge=0.01, le=0.5)] = 0.2
    """Texts never learnt from, on which the model is judged (an entry with a `split` of its own keeps that);
    half as many of the others calibrate its probabilities."""
    dimensions: Count = 16
    epochs: Count = 25
    learning_rate: Positive = 0.5
    word_ngrams: Count = 2
    character_ngrams: Annotated[tuple[CountOrZero, CountOrZero], BeforeValidator(as_tuple)] = (0, 0)
    """Shortest and longest character n-grams (0, 0: none). They halve the speed; for short, misspelt Korean, as
    abuse is written, [1, 4] with 5 epochs is far better than words; for documents words are enough."""


CLASSIFIER_LABELS: dict[str, tuple[str, ...]] = {
    "quality": ("good", "bad"),
    "toxicity": ("toxic", "clean"),
    "domain": get_args(Domain),
}
"""Classifier -> its labels; scores are the first one's probability, the domain's that of the likeliest."""


class Classifiers(Section):
    """Models whose scores rules may bound; each is optional."""

    quality: Classifier | None = None
    """Labels good, bad; gives `quality_score`."""
    toxicity: Classifier | None = None
    """Labels toxic, clean; gives `toxicity_score`."""
    domain: Classifier | None = None
    """Labels are domains; gives `domain_label` and `domain_score`, which routes use."""

    @property
    def configured(self) -> dict[str, Classifier]:
        """Those that the recipe has, by name."""
        found = {name: getattr(self, name) for name in CLASSIFIER_LABELS}
        return {name: settings for name, settings in found.items() if settings is not None}

    @model_validator(mode="after")
    def _labels_are_ours(self) -> Classifiers:
        for name, settings in self.configured.items():
            for label in settings.labels.values():
                if label not in CLASSIFIER_LABELS[name]:
                    known = ", ".join(CLASSIFIER_LABELS[name])
                    raise invalid(f"maps to {label!r} in {name}.labels, which is no label of it", f"use one of {known}")
        return self


class Route(Section):
    """Kept documents that the domain classifier moves from general sources to one of their own.

    Phases name the route in their mixtures as they name a source."""

    domain: Domain
    sources: Annotated[Strings, Field(min_length=1)]
    min_score: Share = 0.8


class Names(Section):
    """Allow and deny lists: `deny` goes before `allow`; an empty `allow` allows all."""

    allow: Strings = ()
    deny: Strings = ()


class Compliance(Section):
    """What may not be used, whatever its quality; the reasons stand in the decisions."""

    licenses: Names = Names()
    """Exact licence strings, case apart."""
    hosts: Names = Names()
    """Hosts with their subdomains: `example.org` covers `www.example.org`."""
    url_words: Strings = ()
    """A URL with one of these between separators is refused."""


class Decontamination(Section):
    """Documents that share text with benchmark items (EXAONE 3.5, section 2.1.2)."""

    benchmarks: Annotated[dict[Name, str], Field(min_length=1)]
    """Benchmark -> file or folder of its items (JSON Lines)."""
    method: Literal["sampled", "full"] = "full"
    """`sampled`: EXAONE's, `samples` random substrings of each document; `full`: every substring."""
    characters: Annotated[int, Field(ge=8, le=1_000)] = 50
    """Length of the substrings, in letters and digits (S). Items that are shorter are not looked for, but by
    `full` as a whole where they have more than half of it; the counts say how many are left out."""
    samples: Count = 10
    """Substrings drawn of each document (N); not used by `full`."""
    policy: Literal["drop", "report"] = "drop"


class Data(Section):
    """Raw documents -> kept documents and the table of decisions."""

    executor: Executor = Executor()
    extract: Extract = Extract()
    rules: RuleProfiles
    lines: Lines | None = Lines()
    """None: lines are left as they are."""
    classifiers: Classifiers = Classifiers()
    near_duplicates: NearDuplicates = NearDuplicates()
    url_duplicates: bool = True
    """Of documents with the same address only one is kept."""
    decontamination: Decontamination | None = None
    compliance: Compliance = Compliance()
    routes: dict[Name, Route] = Field(default={})
    personal_information: Literal["mask", "drop", "keep"] = "mask"
    validation_share: Share = 0.02
    """Share of kept documents held out from training, chosen by a hash of seed and document id."""
