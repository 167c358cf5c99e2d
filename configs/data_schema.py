"""The sections of a recipe that the data pipeline reads: sources, extraction, rules, classifiers, policies.

Contract: as in configs/schema.py, which puts these into a `Recipe`. In the order of the data's way.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from configs.features import FEATURES
from configs.types import Count, CountOrZero, Name, Positive, Real, Section, Share, Strings, as_tuple
from configs.units import Bytes, invalid
from twofold.errors import nearest

Language = Literal["ko", "en"]
Domain = Literal["general", "law", "math", "code", "medicine", "science", "finance"]


# --- raw documents -----------------------------------------------------------------------------


class Source(Section):
    """One named set of raw documents."""

    path: Annotated[str, Field(min_length=1)]
    """File or folder, local or any fsspec address; folders are searched for the format's file endings.
    Example: `s3://bucket/web`."""
    format: Literal["html", "warc", "jsonl", "parquet", "text"]
    """How the files are read. `warc` reads WARC, WET and ARC; `jsonl` reads JSON Lines, pretty-printed JSON and arrays.
    All but Parquet may be compressed with gzip, zstd, bzip2 or xz."""
    domain: Domain = "general"
    """What the documents are about; the report and routes group by it."""
    languages: Annotated[tuple[Language, ...], BeforeValidator(as_tuple)] = ("ko", "en")
    """Languages that belong here. Documents in another language are dropped with that reason."""
    kind: Literal["prose", "code"] = "prose"
    """`code` skips language identification and uses the `code` rules."""
    license: Annotated[str, Field(min_length=1)]
    """License of the source. A record's own `license` or `licence` field takes precedence. Example: `CC-BY-SA-4.0`."""
    text_field: Annotated[str, Field(min_length=1)] = "text"
    """Field of JSON and Parquet records that holds the text. `record.body` names a field within a field, which may also
    be JSON in a string. Example: `content`."""
    html_field: Annotated[str, Field(min_length=1)] = "html"
    """Field that holds a page's HTML, for records without text. If it is also `text_field`, that field is read as
    HTML."""
    url_field: Annotated[str, Field(min_length=1)] | None = None
    """Field that holds the address. By default the fields that corpora use are tried: `url`, `metadata.url`,
    `warc_target_uri` and others."""
    id_field: Annotated[str, Field(min_length=1)] = "id"
    """Field that holds the document's id."""
    max_bytes: Bytes = 2**62
    """Read at most this much text from the source (whole documents, in file order). Example: `5GB`."""

    @model_validator(mode="after")
    def _some_language(self) -> Source:
        if not self.languages:
            raise invalid("accepts no language", "list ko, en or both in `languages`")
        return self


# --- data pipeline -----------------------------------------------------------------------------


class Slurm(Section):
    """How the data stages' tasks are submitted to Slurm."""

    partition: Annotated[str, Field(min_length=1)]
    """Partition for the array jobs. Example: `cpu`."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")] = "4:00:00"
    """Time limit of one array job, [days-]hours:minutes:seconds."""
    cpus_per_task: Count = 1
    """CPU cores per task."""
    memory_per_cpu_gb: Count = 4
    """Memory per core."""
    sbatch: dict[str, str] = Field(default={})
    """Further `#SBATCH --key=value` lines. Example: `{account: corpus}`."""


class Executor(Section):
    """What runs the data stages' tasks. Never part of an artifact's identity."""

    kind: Literal["local", "slurm", "ray"] = "local"
    """`local` processes, `slurm` array jobs or `ray` tasks."""
    workers: Count = 2
    """Tasks that run at the same time."""
    slurm: Slurm | None = None
    """Required for kind `slurm`."""
    ray_address: str = "auto"
    """Address of a running Ray cluster."""
    ray_memory_gb: Positive = 2.0
    """Memory that Ray reserves for a task, besides one CPU core."""
    poll_s: Positive = 5.0
    """How often to ask a running Slurm job for its progress."""

    @model_validator(mode="after")
    def _slurm_is_described(self) -> Executor:
        if self.kind == "slurm" and self.slurm is None:
            raise invalid("runs on Slurm without saying where", "add data.executor.slurm with its `partition`")
        return self


class Extract(Section):
    """Raw bytes to one normalized text per document."""

    max_document_bytes: Bytes = 8_000_000
    """Longer documents (and longer lines of JSON) are rejected, counted and named."""
    broken_files: Literal["reject", "stop"] = "reject"
    """`reject` records a damaged file and continues; `stop` ends the run."""
    fingerprint: Literal["content", "stat"] = "content"
    """How an input file is recognized: SHA-256 of its bytes, or size and modification time (remote: entity tag)."""
    task_bytes: Bytes = 64_000_000
    """Raw bytes per task, at least one file. Bounds a task's memory."""
    html: Literal["combined", "resiliparse", "trafilatura"] = "combined"
    """Main-content extractor: `combined` mends resiliparse and asks trafilatura about doubtful pages."""
    unicode: Literal["NFC", "NFKC"] = "NFC"
    """Normalization form. NFKC also folds full-width and other compatibility forms; it damages mathematics and code."""


LineRule = Literal[
    "javascript", "policy", "boilerplate", "spam", "javascript_mentions", "no_terminal_punctuation", "few_words"
]


class Lines(Section):
    """Rules on single lines and runs of characters, applied before anything is measured. Every edit is recorded."""

    drop: Annotated[tuple[LineRule, ...], BeforeValidator(as_tuple)] = ("javascript", "policy", "boilerplate")
    """Rules of data_pipeline/features/line_rules.py whose lines are dropped. The last three are opt-in."""
    shorten_runs: bool = True
    """Cut runs of ㅋ, ㅎ, ㅠ, ㅜ and of repeated emoji and punctuation to two."""
    repeated_in_documents: Count | None = 50
    """Drop a line or paragraph that occurs in at least this many documents of a source, save one copy; null drops
    none. Numbered lines, such as a statute's articles, always stay."""
    repeated_in_share: Share = 0.001
    """And in at least this share of the source's documents: in a large source, fifty copies are no page frame."""
    repeated_stay_in: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ("law",)
    """Sources, or domains, that keep their repeated lines: laws and contracts repeat clauses that belong to each."""
    repeated_min_bytes: Count = 60
    """Shorter lines and paragraphs (UTF-8) are not counted: headings and stock phrases are not boilerplate."""


class Bound(Section):
    """Keep a document if min <= feature <= max."""

    min: Real | None = None
    """Lowest value that is kept; null for no lower bound."""
    max: Real | None = None
    """Highest value that is kept; null for no upper bound."""

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
            near = nearest(name, FEATURES)
            hint = f"did you mean {' or '.join(near)}?" if near else "docs/recipe.md#features lists them"
            raise invalid(f"has no feature {name!r}", hint)
    return value


Rules = Annotated[dict[str, Bound], BeforeValidator(_known_features)]


class RuleProfiles(Section):
    """Bounds on features by detected language, or for sources of kind `code`. `configs/base.yaml` has defaults."""

    ko: Rules
    """Feature to bound, for Korean documents. Example: `{words: {min: 30}}`."""
    en: Rules
    """Feature to bound, for English documents. Example: `{words: {min: 50, max: 100_000}}`."""
    code: Rules
    """Feature to bound, for sources of kind `code`. Example: `{longest_line: {max: 1000}}`."""


class NearDuplicates(Section):
    """MinHash LSH over word n-grams, with `num_buckets` x `hashes_per_bucket` hashes."""

    enabled: bool = True
    """Whether near duplicates are searched; exact ones always are."""
    ngram_words: Count = 5
    """Words per n-gram."""
    num_buckets: Count = 14
    """LSH buckets. Documents that share one are compared. More buckets find less similar pairs."""
    hashes_per_bucket: Count = 8
    """Hashes that must all agree within a bucket. More hashes find only more similar pairs."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Least similarity of near duplicates: the share of their word n-grams that both have, estimated from sketches."""


class Classifier(Section):
    """One fastText model, trained on JSON Lines with `text`, `label` and optionally `split` and `lang`."""

    train: Annotated[Strings, Field(min_length=1)]
    """Labeled JSON Lines files or folders; or `LABEL=PATH`, which gives every record or text file that label.
    Example: `[law=raw/law, math=raw/math]`."""
    labels: dict[str, str] = Field(default={})
    """Renames labels of the records to ours; records with other labels are left out and counted.
    Example: `{high: good, low: bad}`."""
    label_field: Annotated[str, Field(min_length=1)] = "label"
    """Field of a record that holds its label."""
    most_per_entry: Count = 20_000
    """At most this many texts per label and entry of `train`, chosen by a hash. Bounds memory and balances classes."""
    held_out_share: Annotated[float, Field(ge=0.01, le=0.5)] = 0.2
    """Share of the texts that the model is tested on (an entry's own `split` takes precedence);
    half as many of the others calibrate its probabilities."""
    dimensions: Count = 16
    """Size of fastText's vectors."""
    epochs: Count = 25
    """Passes over the training texts."""
    learning_rate: Positive = 0.5
    """fastText's learning rate."""
    word_ngrams: Count = 2
    """Longest word n-grams."""
    character_ngrams: Annotated[tuple[CountOrZero, CountOrZero], BeforeValidator(as_tuple)] = (0, 0)
    """Shortest and longest character n-grams; [0, 0] for none. They halve the speed. [1, 4] with 5 epochs is far better
    for short, misspelled Korean such as abuse; words are enough for documents."""


CLASSIFIER_LABELS: dict[str, tuple[str, ...]] = {
    "quality": ("good", "bad"),
    "toxicity": ("toxic", "clean"),
    "domain": get_args(Domain),
}
"""Classifier -> its labels; scores are the first one's probability, the domain's that of the likeliest."""


class Classifiers(Section):
    """Models whose scores rules can bound. Each is optional."""

    quality: Classifier | None = None
    """Labels `good` and `bad`; gives the feature `quality_score`."""
    toxicity: Classifier | None = None
    """Labels `toxic` and `clean`; gives the feature `toxicity_score`."""
    domain: Classifier | None = None
    """Labels are the domains of sources; gives `domain_label` and `domain_score`, which routes use."""

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
    """Kept documents that the domain classifier moves from general sources to a destination of their own.

    Phases name the route in their mixtures as they name a source."""

    domain: Domain
    """Predicted domain of the documents to move."""
    sources: Annotated[Strings, Field(min_length=1)]
    """Sources that they are moved from. Example: `[ko-wiki, en-wiki]`."""
    min_score: Share = 0.8
    """Lowest probability of that domain."""


class Names(Section):
    """Allow and deny lists. `deny` takes precedence; an empty `allow` allows everything."""

    allow: Strings = ()
    """If not empty, only these are allowed."""
    deny: Strings = ()
    """These are refused."""


class Compliance(Section):
    """What may not be used, whatever its quality. The decisions give the reason."""

    licenses: Names = Names()
    """License strings, compared without regard to case. Example: `{deny: [CC-BY-NC-4.0]}`."""
    hosts: Names = Names()
    """Hosts with their subdomains: `example.org` covers `www.example.org`."""
    url_words: Strings = ()
    """Refuse URLs that contain one of these words between separators. Example: `[casino]`."""


class Decontamination(Section):
    """Documents that share text with benchmark items (EXAONE 3.5, section 2.1.2)."""

    benchmarks: Annotated[dict[Name, str], Field(min_length=1)]
    """Benchmark name to a file or folder of its items (JSON Lines). Example: `{gsm8k: data/gsm8k}`."""
    method: Literal["sampled", "full"] = "full"
    """`full` compares every substring; `sampled` compares `samples` random substrings per document, as EXAONE does."""
    characters: Annotated[int, Field(ge=8, le=1_000)] = 50
    """Length of the substrings in letters and digits (S). `full` compares shorter items as a whole if they have more
    than half of it; other shorter items are skipped and counted."""
    samples: Count = 10
    """Substrings drawn per document (N); only for `sampled`."""
    policy: Literal["drop", "report"] = "drop"
    """`drop` contaminated documents, or only `report` them."""


class Data(Section):
    """Raw documents to decisions and kept documents."""

    executor: Executor = Executor()
    """What runs the data stages' tasks."""
    extract: Extract = Extract()
    """How raw files become documents."""
    rules: RuleProfiles
    """Bounds on features by language."""
    lines: Lines | None = Lines()
    """Rules on single lines; null leaves lines as they are."""
    classifiers: Classifiers = Classifiers()
    """Models whose scores rules can bound."""
    near_duplicates: NearDuplicates = NearDuplicates()
    """MinHash near-duplicate search."""
    url_duplicates: bool = True
    """Keep only one of the documents with the same address, if their words agree."""
    url_duplicates_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Least similarity of documents with the same address, as in `near_duplicates.threshold`."""
    decontamination: Decontamination | None = None
    """Removes text of benchmarks; null for none."""
    compliance: Compliance = Compliance()
    """Licenses, hosts and addresses that may not be used."""
    routes: dict[Name, Route] = Field(default={})
    """Route name to the documents that it takes from general sources."""
    personal_information: Literal["mask", "drop", "keep"] = "mask"
    """`mask` personal numbers and addresses, `drop` documents with them, or `keep` them."""
    validation_share: Share = 0.02
    """Share of kept documents held out from training, chosen by a hash of seed and document id."""
