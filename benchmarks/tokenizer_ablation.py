"""Which tokenizer does a small model learn best with? Held-out bits per byte by tokenizer and seed.

    python -m benchmarks.tokenizer_ablation [--corpus DIR] [--scratch DIR] [--seeds 3] [--jobs 1]
                                            [--results RUNS.jsonl] [--json OUT] [--docs DIR]

Contract: every model is trained on the same bytes of text in the same order, cut into windows of equal bytes (the
context is equal, too), so that a tokenizer that needs more tokens takes more computation, and not more text or more
steps. Bits per byte are those of documents that neither tokenizer nor model has seen; they hold the end of each
document as well. A seed decides weights and the order of windows, for all tokenizers alike, so differences are
taken within seeds. The model is the project's own decoder; the vocabulary has 8,192 ids, since at 102,400 the
embedding of so small a model would be nearly all of it.

A finished run is a line of `--results` and not made again: the benchmark can be interrupted, and called again to
draw the table. `--docs` writes tokenizer-ablation.md and .svg.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import common
from benchmarks.tokenizer_variants import VARIANTS, documents, is_held_out, texts, trained
from benchmarks.two_phases import T_95
from configs.schema import Model, Tokenizer
from launch.reports import plots
from pretrain.model.decoder import Decoder, initial_weights
from tokenizer.encoder import Encoder
from tokenizer.evaluation.compression import LabelledText, first_bytes
from twofold.files import atomic_path
from twofold.special_ids import EOS_ID, PAD_ID

ARMS = ("exaone3-code", "exaone3-code, MeCab", "plain", "superbpe")
REFERENCE = ARMS[0]
SOURCES = (
    *("general/ko-text/kowiki", "general/ko-text/petitions", "domain/medicine/kowiki-medicine"),
    *("general/en-text/enwiki", "general/en-text/sotu", "domain/medicine/medquad"),
    *("domain/code/sympy-py", "domain/code/networkx-py", "domain/code/lodash-js"),
)
SHARES = {"ko": 0.45, "en": 0.40, "code": 0.15}
"""Of the bytes of training text."""
MODEL = Model(d_model=192, n_layers=4, n_heads=6, n_kv_heads=2, d_ff=512, max_sequence_length=2048)
VOCAB_SIZE = 8_192
_LONGEST = 20_000
"""Characters of a document that are used, so that no long one is most of the text."""
_HELD_OUT_BYTES = 80_000
_BETAS, _DECAY, _CLIP, _WARMUP_SHARE, _FINAL_SHARE = (0.9, 0.95), 0.1, 1.0, 0.05, 0.1
Windows = list[npt.NDArray[np.int64]]
"""Tokens that begin in each stretch of the text."""
_CAVEAT = """![Bits per byte by tokenizer and seed](tokenizer-ablation.svg)

Made by `python -m benchmarks.tokenizer_ablation --docs docs`. Text and computation are a millionth of the
real scale, and the vocabulary is a twelfth. This can show that a choice is harmful early in training, but not which
choice wins at 8 T tokens."""


@dataclass(frozen=True)
class Settings:
    """What all runs have in common; part of each line of the results."""

    train_bytes: int
    window_bytes: int = 512
    batch_windows: int = 8
    peak: float = 3e-3
    vocab_size: int = VOCAB_SIZE
    d_model: int = MODEL.d_model
    device: str = "cpu"


@dataclass(frozen=True)
class Run:
    """One model to train."""

    arm: str
    seed: int
    settings: Settings
    tokenizer: Path
    text: Path

    @property
    def key(self) -> dict[str, Any]:
        return {"arm": self.arm, "seed": self.seed, **asdict(self.settings)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then report."""
    chosen = _options(arguments)
    settings = Settings(round(chosen.megabytes * 1e6), vocab_size=chosen.vocab_size, device=chosen.device)
    runs = [
        Run(arm, seed, settings, tokenizer, text)
        for seed in range(1, chosen.seeds + 1)
        for arm, (tokenizer, text) in prepared(chosen.corpus, chosen.scratch, settings).items()
    ]
    done = finished(chosen.results)
    missing = [run for run in runs if key_of(run.key) not in done]
    with concurrent.futures.ProcessPoolExecutor(
        chosen.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        for result in concurrent.futures.as_completed([pool.submit(train, run) for run in missing]):
            row = result.result()
            common.CONSOLE.print(row)
            with chosen.results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
    done = finished(chosen.results)
    report([done[key_of(run.key)] for run in runs], settings, chosen.json, chosen.docs)


# --- text --------------------------------------------------------------------------------------


def prepared(corpus: Path, scratch: Path, settings: Settings) -> dict[str, tuple[Path, Path]]:
    """Arm -> (folder of its tokenizer, file of the texts)."""
    kept = documents(corpus, SOURCES, scratch, is_not_held_out)
    path = scratch / f"ablation-{settings.train_bytes}.json"
    if not path.exists():
        train_texts = [
            row
            for label, share in SHARES.items()
            for row in first_bytes(_of(corpus, label, is_not_held_out), round(share * settings.train_bytes))
        ]
        held_out = [row for label in SHARES for row in first_bytes(_of(corpus, label, is_held_out), _HELD_OUT_BYTES)]
        with atomic_path(path) as target:
            target.write_text(json.dumps([[asdict(row) for row in rows] for rows in (train_texts, held_out)]))
    wishes = {arm: Tokenizer(vocab_size=settings.vocab_size, reserved_ids=0, **VARIANTS[arm]) for arm in ARMS}
    return {arm: (trained(kept, wish, scratch).path, path) for arm, wish in wishes.items()}


def is_not_held_out(document_id: str) -> bool:
    """What tokenizers and models learn from."""
    return not is_held_out(document_id)


def _of(corpus: Path, label: str, chosen: Any) -> list[LabelledText]:
    """Texts of a language, its sources in turn."""
    own = [
        [LabelledText(row.language, row.domain, row.text[:_LONGEST]) for row in rows if row.language == label]
        for rows in texts(corpus, SOURCES, chosen).values()
    ]
    own = [rows for rows in own if rows]
    return [rows[turn] for turn in range(max(map(len, own))) for rows in own if turn < len(rows)]


def windows_of(encoder: Encoder, sizes: npt.NDArray[np.int64], rows: Sequence[str], window_bytes: int) -> Windows:
    """Texts one after the other, each ended by eos, cut where `window_bytes` more bytes have begun.

    `sizes` is how many bytes each id stands for. The bytes after the last whole window are left out.
    """
    tokens = np.array([token for ids in encoder.encode(rows) for token in (*ids, EOS_ID)], np.int64)
    begins = np.cumsum(sizes[tokens]) - sizes[tokens]
    whole = int(sizes[tokens].sum()) // window_bytes
    borders = np.searchsorted(begins, window_bytes * np.arange(whole + 1), side="left")
    return [tokens[first:end] for first, end in pairwise(borders)]


def batch_of(windows: Windows) -> tuple[torch.Tensor, torch.Tensor]:
    """(inputs, targets) BT: eos, then the window's tokens but the last; and its tokens, padded with `PAD_ID`."""
    longest = max(map(len, windows))
    targets = np.full((len(windows), longest), PAD_ID, np.int64)
    for row, window in enumerate(windows):
        targets[row, : len(window)] = window
    inputs = np.concatenate([np.full((len(windows), 1), EOS_ID, np.int64), targets[:, :-1]], axis=1)
    return torch.from_numpy(inputs), torch.from_numpy(targets)


# --- one model ---------------------------------------------------------------------------------


def train(run: Run) -> dict[str, Any]:
    """Train one model; its line of the results."""
    torch.set_num_threads(1)
    settings, started = run.settings, time.perf_counter()
    encoder = Encoder(run.tokenizer)
    sizes = np.load(run.tokenizer / "token_bytes.npy").astype(np.int64)
    train_rows, held_out = json.loads(run.text.read_text(encoding="utf-8"))
    windows = windows_of(encoder, sizes, [row["text"] for row in train_rows], settings.window_bytes)
    model = Decoder(MODEL, encoder.vocab_size)
    model.load_state_dict(dict(initial_weights(MODEL, encoder.vocab_size, run.seed)))
    model.to(settings.device)
    tokens = _fit(model, windows, run)
    seconds = time.perf_counter() - started
    scores = {}
    for label in SHARES:
        rows = [row["text"] for row in held_out if row["language"] == label]
        own = windows_of(encoder, sizes, rows, settings.window_bytes)
        scores[label] = bits_per_byte(model, own, settings)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {**run.key, "bits_per_byte": scores, "tokens": tokens, "parameters": parameters, "seconds": seconds}


def _fit(model: Decoder, windows: Windows, run: Run) -> int:
    """AdamW once over the windows, cosine after a warm-up; returns the tokens learnt from."""
    settings = run.settings
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": _DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.peak, betas=_BETAS)
    batches = list(_batches(len(windows), run.seed, settings.batch_windows))
    tokens = 0
    for step, chosen in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = settings.peak * rate(step, len(batches))
        losses, real = _losses(model, [windows[number] for number in chosen], settings.device)
        tokens += int(real.sum())
        torch.autograd.backward((losses * real).sum() / real.sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
        optimizer.zero_grad()
    return tokens


def _batches(windows: int, seed: int, size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Numbers of windows in the order of the seed; the last batch is dropped where it is not full."""
    order = np.random.default_rng(seed).permutation(windows)
    for first in range(0, windows - size + 1, size):
        yield order[first : first + size]


def rate(step: int, steps: int) -> float:
    """The learning rate's share of its peak: linear warm-up, cosine to `_FINAL_SHARE`."""
    warmup = max(1, round(_WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return _FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2


def bits_per_byte(model: Decoder, windows: Windows, settings: Settings) -> float:
    """Of windows of equal bytes, the ends of documents included."""
    nats = 0.0
    with torch.no_grad():
        for first in range(0, len(windows), settings.batch_windows):
            losses, real = _losses(model, windows[first : first + settings.batch_windows], settings.device)
            nats += float((losses * real).sum())
    return nats / math.log(2) / (len(windows) * settings.window_bytes)


def _losses(model: Decoder, windows: Windows, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(-log p of each token, whether it is one and no padding), BT."""
    inputs, targets = (part.to(device) for part in batch_of(windows))
    with torch.autocast(device, torch.bfloat16):
        losses, _ = model(inputs, targets)
    return losses, targets != PAD_ID


# --- results -----------------------------------------------------------------------------------


def key_of(key: Mapping[str, Any]) -> str:
    """A run as text."""
    names = ("arm", "seed", *Settings.__dataclass_fields__)
    return json.dumps({name: key[name] for name in names})


def finished(path: Path) -> dict[str, dict[str, Any]]:
    """Key -> line of the results."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {key_of(row): row for row in rows}


def report(rows: Sequence[Mapping[str, Any]], settings: Settings, target: Path | None, docs: Path | None) -> None:
    """Print the table; write JSON and docs where asked for."""
    scores = {
        arm: {label: [row["bits_per_byte"][label] for row in rows if row["arm"] == arm] for label in SHARES}
        for arm in ARMS
    }
    text = table(scores, rows, settings)
    common.CONSOLE.print(text, markup=False, soft_wrap=True)
    means = {arm: {label: statistics.mean(own) for label, own in by.items()} for arm, by in scores.items()}
    ours, peers = means[REFERENCE], {arm: means[arm] for arm in ARMS if arm != REFERENCE}
    ratio = {arm: {label: peers[arm][label] / ours[label] for label in SHARES} for arm in peers}
    common.report(
        "tokenizer_ablation",
        {"ours": {REFERENCE: ours}, "peers": peers, "ratio": ratio, "bits_per_byte": scores, **asdict(settings)},
        target,
    )
    if docs:
        dots = {f"{label}: {arm}": scores[arm][label] for label in SHARES for arm in ARMS}
        with atomic_path(docs / "tokenizer-ablation.svg") as path:
            path.write_text(plots.dots(dots, "bits per byte, one dot per seed, line at the mean"), encoding="utf-8")
        with atomic_path(docs / "tokenizer-ablation.md") as path:
            path.write_text(f"# Which tokenizer a small model learns best with\n\n{text}\n\n{_CAVEAT}\n", "utf-8")


def table(scores: Mapping[str, Mapping[str, Sequence[float]]], rows: Sequence[Any], settings: Settings) -> str:
    """Markdown: mean and interval of each arm, and of its difference from the reference within seeds."""
    seeds = len(scores[REFERENCE]["ko"])
    head = (
        f"Held-out bits per byte: mean and 95 % interval over {seeds} seeds, and below each the difference from "
        f"`{REFERENCE}` within seeds. Lower is better. Every model has {rows[0]['parameters'] / 1e6:.1f} M parameters "
        f"and a vocabulary of {settings.vocab_size:,}, and trains on {settings.train_bytes / 1e6:.1f} MB of text."
    )
    lines = [f"| tokenizer | {' | '.join(SHARES)} | tokens |", "|---|" + "---:|" * (len(SHARES) + 1)]
    for arm, by in scores.items():
        tokens = next(row["tokens"] for row in rows if row["arm"] == arm)
        lines.append(f"| {arm} | {' | '.join(_interval(own) for own in by.values())} | {tokens:,} |")
        if arm != REFERENCE:
            pairs = [zip(own, scores[REFERENCE][label], strict=True) for label, own in by.items()]
            cells = [_interval([one - other for one, other in own], "+.4f") for own in pairs]
            lines.append(f"| – difference | {' | '.join(cells)} | |")
    return "\n".join((head, "", *lines))


def _interval(values: Sequence[float], form: str = ".4f") -> str:
    """Mean and half the 95 % interval; the mean alone of one seed."""
    mean = format(statistics.mean(values), form)
    if len(values) < 2:
        return mean
    return f"{mean} ± {T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values)):.4f}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = common.parser("tokenizer_ablation", "Held-out bits per byte by tokenizer.")
    options.add_argument("--scratch", type=Path, default=Path("runs/tokenizer-ablation"), help="tokenizers, texts")
    options.add_argument("--results", type=Path, default=Path("runs/tokenizer-ablation/runs.jsonl"))
    options.add_argument("--seeds", type=int, choices=sorted(T_95 | {1: 0.0}), default=3)
    options.add_argument("--jobs", type=int, default=1, help="models at once, one thread each")
    options.add_argument("--megabytes", type=float, default=2.0, help="of text for each model")
    options.add_argument("--vocab-size", type=int, default=VOCAB_SIZE)
    options.add_argument("--device", default="cpu")
    options.add_argument("--docs", type=Path, metavar="DIR")
    return options.parse_args(arguments)


if __name__ == "__main__":
    main()
