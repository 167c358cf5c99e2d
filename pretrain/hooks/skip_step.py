"""The spike guard: whether to follow a step's gradient. Pure Python, the same answer on every rank.

Contract: `judge` compares a step's loss and gradient norm with those of the last `rolling_interval_length` accepted
steps of the same phase. A spike is more than `sigma_factor` robust deviations above their median (1.4826 times the
median absolute deviation, which a spike in the interval hardly moves; norms are compared as logarithms because of
their heavy tail). Nothing is a spike before half an interval is known, since losses fall fast then. A gradient that
is not finite is never accepted. The guard's memory is in the checkpoint, so a resumed run judges as an
uninterrupted one does.

The trainer skips the update of a bad step. `rollback_after` bad steps in a row mean that the weights went wrong
earlier, and training returns to a checkpoint from before them (rollback.py).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from configs.schema import Stability

Verdict = Literal["accepted", "not finite", "spike"]

MOST_BAD_IN_A_ROW = 10
"""Skipped steps, one after the other, before training gives up where it cannot roll back."""

_NORMAL = 1.4826
"""Standard deviation of a normal distribution by its median absolute deviation."""
_LEAST_LOSS_DEVIATION = 0.02
"""Nats a token: below this the noise of a batch is no measure (a phase that has converged)."""
_LEAST_NORM_DEVIATION = 0.1
"""Of the norm's logarithm."""


@dataclass(frozen=True)
class Judgement:
    """One step's verdict and the limits that it was held against (None where too little was known)."""

    verdict: Verdict
    loss_limit: float | None = None
    norm_limit: float | None = None


class SpikeGuard:
    """Remembers accepted steps; counts bad ones in a row."""

    def __init__(self, cfg: Stability) -> None:
        self._cfg = cfg
        self._phase = -1
        self._losses: deque[float] = deque(maxlen=cfg.rolling_interval_length)
        self._log_norms: deque[float] = deque(maxlen=cfg.rolling_interval_length)
        self.bad_in_a_row = 0
        self.rollbacks: list[int] = []
        """Indexes of the steps at which training went back."""

    def judge(self, phase: int, loss: float, norm: float) -> Judgement:
        """Judge the step about to be applied, and remember it."""
        if phase != self._phase:  # another mixture has another loss
            self._phase, self.bad_in_a_row = phase, 0
            self._losses.clear()
            self._log_norms.clear()
        found = self._judge(loss, norm)
        if found.verdict == "accepted":
            self.bad_in_a_row = 0
            self._losses.append(loss)
            self._log_norms.append(math.log(max(norm, 1e-30)))
        else:
            self.bad_in_a_row += 1
        return found

    def wants_rollback(self) -> bool:
        """Whether so many steps in a row were bad that skipping them does not help."""
        return self._cfg.spikes == "rollback" and self.bad_in_a_row >= self._cfg.rollback_after

    def recent_rollbacks(self, step: int) -> list[int]:
        """Rollbacks within one interval of steps before `step`."""
        return [at for at in self.rollbacks if at > step - self._cfg.rolling_interval_length]

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps; JSON holds floats exactly."""
        return {
            "phase": self._phase,
            "losses": list(self._losses),
            "log_norms": list(self._log_norms),
            "bad_in_a_row": self.bad_in_a_row,
            "rollbacks": list(self.rollbacks),
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` returned; an empty one is a fresh start."""
        self._phase = memory.get("phase", -1)
        self._losses = deque(memory.get("losses", ()), maxlen=self._cfg.rolling_interval_length)
        self._log_norms = deque(memory.get("log_norms", ()), maxlen=self._cfg.rolling_interval_length)
        self.bad_in_a_row = memory.get("bad_in_a_row", 0)
        self.rollbacks = list(memory.get("rollbacks", ()))

    def _judge(self, loss: float, norm: float) -> Judgement:
        if not (math.isfinite(loss) and math.isfinite(norm) and norm >= 0):
            return Judgement("not finite")
        if self._cfg.spikes == "off" or 2 * len(self._losses) < self._cfg.rolling_interval_length:
            return Judgement("accepted")
        loss_limit = _limit(self._losses, self._cfg.sigma_factor, _LEAST_LOSS_DEVIATION)
        norm_limit = math.exp(_limit(self._log_norms, self._cfg.sigma_factor, _LEAST_NORM_DEVIATION))
        bad = loss > loss_limit or norm > norm_limit
        return Judgement("spike" if bad else "accepted", loss_limit, norm_limit)


def _limit(values: Sequence[float], sigma_factor: float, least: float) -> float:
    middle = median(values)
    deviation = _NORMAL * median(abs(value - middle) for value in values)
    return middle + sigma_factor * max(deviation, least)
