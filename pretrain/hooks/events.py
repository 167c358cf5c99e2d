"""The `train` lines of metrics.jsonl (see metrics.py).

step, tokens            behind it, over all phases; `seconds` of training behind it, restarts included
loss, z_loss            cross-entropy (nats per token) and log²(Z), means over the global batch
lr, grad_norm           learning rate; global norm of the gradient before clipping, null if it was not finite
skipped, verdict        whether the update was dropped, and the spike guard's verdict (skip_step.py)
tps                     tokens per second
mfu, mfu_causal         share of the devices' peak, all pairs of attention counted or the causal ones (sizes.py)
data_loading_pct        % of the step's time, on rank 0
memory_bytes            rank 0's peak: device memory on CUDA, resident memory on CPU
tokens_by_source        of each source that changed the weights so far, exact
batch_hash              fingerprint of the global batch, equal on any number of ranks
"""

from __future__ import annotations

from pretrain.data.batches import HASH_MODULUS
from pretrain.data.plan import Step
from pretrain.hooks.hook import Hook, StepResult
from pretrain.model.sizes import flops_per_token
from pretrain.profiling.timing import peak_memory


class StepEvents(Hook):
    """Writes `train` at the recipe's cadence, at both ends of a phase, and for every skipped step."""

    def after_step(self, result: StepResult) -> None:
        if not self.run.ranks.is_first or not (self._is_logged(result.step) or result.is_skipped):
            return
        run, step, seconds = self.run, result.step, result.seconds
        flops = flops_per_token(run.recipe.model, run.recipe.tokenizer.vocab_size, step.sequence_length)
        tokens_per_s = step.tokens / seconds
        run.monitor.event(
            "train",
            run.progress.done,
            phase=run.recipe.phases[step.phase].name,
            tokens=step.tokens_after,
            loss=result.sums.loss,
            z_loss=result.sums.z_loss,
            lr=step.lr,
            grad_norm=result.grad_norm,
            skipped=result.is_skipped,
            verdict=result.judgement.verdict,
            tps=tokens_per_s,
            mfu=self._utilization(flops["full"] * tokens_per_s),
            mfu_causal=self._utilization(flops["causal"] * tokens_per_s),
            data_loading_pct=100 * result.data_seconds / seconds,
            memory_bytes=peak_memory(run.ranks.device),
            step_seconds=seconds,
            seconds=run.progress.seconds,
            tokens_by_source=run.token_counts().by_source(),
            batch_hash=f"{int(result.sums.batch_hash) % HASH_MODULUS:08x}",
        )

    def _is_logged(self, step: Step) -> bool:
        done = self.run.progress.done
        at_edge = step.first_sample == 0 or self.run.plan.phase_ended_by(done) is not None
        return at_edge or done % self.run.recipe.monitor.log_every_steps == 0

    def _utilization(self, flops_per_s: float) -> float | None:
        peak = self.run.recipe.monitor.peak_tflops
        return flops_per_s / (self.run.ranks.size * peak * 1e12) if peak else None
