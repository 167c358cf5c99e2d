"""The data order as mathematics: which sequence is sample i, computed and never stored.

Contract: `Order.samples(phase, first, count)` is a pure function of seed, phases and token counts. It is random
access (nothing is iterated, so resuming anywhere costs nothing), 64-bit throughout, and independent of ranks and
micro-batches: a global batch is the same on any number of devices. Cost: about a microsecond per sample, independent
of the size of the data.

    mixture      every `mixture_block_size` consecutive samples of a phase hold each source's quota exactly (largest
                 remainder); a keyed permutation spreads the sources inside the block
    sources      the n-th sequence taken from a source is the n-th of a keyed permutation of that source's sequences;
                 each epoch has its own permutation
    phases       a later phase continues in a source where the previous phase that used it stopped, so unseen
                 sequences come first. If the sequence length differs, the source is cut into other sequences and the
                 later phase starts the source's next epoch

Permutations are Feistel networks over the next even power of two, walked until they fall inside the range (Black and
Rogaway, "Ciphers with Arbitrary Finite Domains", 2002, section 5).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from configs.phase_schema import Phase
from twofold.errors import Problem, UserError

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

_ROUNDS = 6
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Samples:
    """Where consecutive samples come from; parallel arrays."""

    source: Int64
    """Index into `Order.sources`."""
    epoch: Int64
    sequence: Int64
    """Index of the sequence in its source at the phase's sequence length."""


class Order:
    """The order of all samples of all phases."""

    def __init__(self, seed: int, phases: Sequence[Phase], tokens: Mapping[str, int]) -> None:
        """`tokens`: training tokens of each source; must have every source of a mixture."""
        self.seed = seed
        self.phases = tuple(phases)
        self.tokens = dict(tokens)
        self.sources = tuple(dict.fromkeys(source for phase in self.phases for source in phase.mixture))
        self._quotas = tuple(quotas(phase) for phase in self.phases)
        self._starts = self._phase_starts()

    def samples(self, phase: int, first: int, count: int) -> Samples:
        """Samples first..first+count-1 of `phase`, in order."""
        names = tuple(self._quotas[phase])
        local, turns = self._sources_of(phase, first, count)
        source = np.empty(count, np.int64)
        epoch = np.empty(count, np.int64)
        sequence = np.empty(count, np.int64)
        for position, name in enumerate(names):
            chosen = local == position
            size = self.n_sequences(name, phase)
            turn = self._starts[phase][name] + turns[chosen]
            source[chosen] = self.sources.index(name)
            epoch[chosen] = turn // size
            sequence[chosen] = self._shuffled(name, turn // size, turn % size, size)
        return Samples(source, epoch, sequence)

    def taken(self, phase: int, samples: int) -> dict[str, int]:
        """Sequences that the first `samples` samples of `phase` take from each source."""
        block = self.phases[phase].mixture_block_size
        whole, rest = divmod(samples, block)
        counts = {name: whole * quota for name, quota in self._quotas[phase].items()}
        if rest:
            pattern = self._pattern(phase, whole)[:rest]
            for position, name in enumerate(counts):
                counts[name] += int((pattern == position).sum())
        return counts

    def n_sequences(self, source: str, phase: int) -> int:
        """Sequences of `phase`'s length in `source`; the target of the last token needs one more."""
        return (self.tokens[source] - 1) // self.phases[phase].sequence_length

    def tokens_taken(self, source: str, upto_phase: int) -> int:
        """Total tokens that phases 0..upto_phase take from `source`."""
        return sum(
            self.taken(index, phase.samples).get(source, 0) * phase.sequence_length
            for index, phase in enumerate(self.phases[: upto_phase + 1])
        )

    def _phase_starts(self) -> list[dict[str, int]]:
        """How many turns of each source came before each phase."""
        starts: list[dict[str, int]] = []
        left: dict[str, tuple[int, int]] = {}  # source -> (phase that used it last, turns after it)
        for index, phase in enumerate(self.phases):
            start: dict[str, int] = {}
            for name, taken in self.taken(index, phase.samples).items():
                previous, turns = left.get(name, (index, 0))
                if self.phases[previous].sequence_length != phase.sequence_length:
                    epochs = -(-turns // self.n_sequences(name, previous))
                    turns = epochs * self.n_sequences(name, index)
                start[name] = turns
                left[name] = (index, turns + taken)
            starts.append(start)
        return starts

    def _sources_of(self, phase: int, first: int, count: int) -> tuple[Int64, Int64]:
        """Each sample's source (position in the mixture) and that source's turn in the phase."""
        block = self.phases[phase].mixture_block_size
        quota = np.array(list(self._quotas[phase].values()), np.int64)
        sources, turns = [], []
        for number in range(first // block, -(-(first + count) // block)):
            pattern = self._pattern(phase, number)
            turn = np.empty(block, np.int64)
            for position, size in enumerate(quota):
                turn[pattern == position] = number * size + np.arange(size)
            inside = slice(max(first - number * block, 0), min(first + count - number * block, block))
            sources.append(pattern[inside])
            turns.append(turn[inside])
        return np.concatenate(sources), np.concatenate(turns)

    def _pattern(self, phase: int, number: int) -> Int64:
        """The sources (positions in the mixture) of block `number`, in sample order."""
        counts = list(self._quotas[phase].values())
        ordered = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        block = len(ordered)
        return ordered[permute(np.arange(block, dtype=np.int64), block, _key(self.seed, "mixture", phase, number))]

    def _shuffled(self, source: str, epochs: Int64, positions: Int64, size: int) -> Int64:
        out = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = permute(positions[here], size, _key(self.seed, "source", source, int(epoch)))
        return out


def quotas(phase: Phase) -> dict[str, int]:
    """Sequences of each source in a mixture block: largest remainder, ties to the first written.

    Raises `UserError` if a source's share is too small for a sequence in every block.
    """
    block = phase.mixture_block_size
    total = sum(phase.mixture.values())
    exact = {name: share / total * block for name, share in phase.mixture.items()}
    counts = {name: int(quota) for name, quota in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: block - sum(counts.values())]:
        counts[name] += 1
    problems = [
        Problem(
            f"phases.{phase.name}.mixture.{name}",
            phase.mixture[name],
            f"is less than one sequence in a mixture block of {block}",
            f"raise phases.{phase.name}.mixture_block_size to at least {int(1 / share) + 1}, raise the share, or "
            "remove it",
        )
        for name, share in phase.mixture.items()
        if counts[name] == 0
    ]
    if problems:
        raise UserError(problems)
    return counts


def permute(positions: Int64, size: int, key: int) -> Int64:
    """A keyed bijection of 0..size-1, applied to each position. Takes at most four tries each on average."""
    assert len(positions) == 0 or (positions.min() >= 0 and positions.max() < size), (positions, size)
    if size == 1:
        return np.zeros_like(positions)
    half_bits = max(1, -(-(size - 1).bit_length() // 2))
    keys = _round_keys(key)
    values = _feistel(positions.astype(np.uint64), half_bits, keys)
    outside = np.flatnonzero(values >= np.uint64(size))
    while len(outside):
        values[outside] = _feistel(values[outside], half_bits, keys)
        outside = outside[values[outside] >= np.uint64(size)]
    return values.astype(np.int64)


def _feistel(values: UInt64, half_bits: int, keys: UInt64) -> UInt64:
    bits, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << bits) | right


def _mix(values: UInt64) -> UInt64:
    """SplitMix64's finalizer."""
    values = (values ^ (values >> np.uint64(30))) * _MULTIPLY_1
    values = (values ^ (values >> np.uint64(27))) * _MULTIPLY_2
    return values ^ (values >> np.uint64(31))


@functools.lru_cache(maxsize=4096)
def _round_keys(key: int) -> UInt64:
    digest = hashlib.blake2b(key.to_bytes(8, "little"), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


@functools.lru_cache(maxsize=4096)
def _key(seed: int, *parts: str | int) -> int:
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
