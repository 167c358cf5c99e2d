"""The sections of a recipe that say what starts the ranks and who looks after them.

Contract: nothing here decides a weight: two runs that differ in these sections only give the same model.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.types import Count, CountOrZero, Positive, Section
from configs.units import invalid


class SlurmJob(Section):
    """The job that trains on a Slurm cluster (`twofold launch --slurm`)."""

    partition: Annotated[str, Field(min_length=1)]
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")] = "24:00:00"
    """Limit of one run of the job, [days-]hours:minutes:seconds; it is queued again until training is done."""
    save_lead_s: Count = 300
    """How long before the limit training is told to save and stop."""
    requeues: CountOrZero = 100
    """Times that the job may be queued again."""
    sbatch: dict[str, str] = Field(default={})
    """Further `#SBATCH --key=value` lines, e.g. {account: llm, gres: "gpu:8"}."""


class Launch(Section):
    """Which devices train, and what starts the ranks. The batch in tokens does not depend on it."""

    nodes: Count = 1
    gpus_per_node: Count = 8
    cpu_ranks: Count = 2
    """Gloo ranks on a node without GPUs."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto` asks this machine, and so stands for one node only."""
    launcher: Literal["deepspeed", "srun"] = "deepspeed"
    """`srun` within a Slurm job; `twofold launch --slurm` sets it."""
    hostfile: str | None = None
    """DeepSpeed hostfile; needed for more than one node, but for srun."""
    slurm: SlurmJob | None = None
    environment: dict[str, str] = Field(default={})
    """Further variables for every rank, e.g. {NCCL_SOCKET_IFNAME: ib0}."""
    restarts: CountOrZero = 0
    """Times in a row that a failed training is started again without a new checkpoint in between."""
    min_nodes: Count | None = None
    """Fewest nodes that a restart may go on with when some are lost; None: all are needed."""

    @model_validator(mode="after")
    def _nodes_fit(self) -> Launch:
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            raise invalid(f"has min_nodes {self.min_nodes} above nodes {self.nodes}", "lower launch.min_nodes")
        if self.nodes > 1 and self.device == "auto":
            raise invalid(f"has {self.nodes} nodes and device auto", "say launch.device=cuda (or cpu)")
        return self


class Watch(Section):
    """What ends a training that no longer moves, and what finds the rank that holds up the others."""

    stall_s: Positive = 900.0
    """Longest time without progress (a step, a validation batch, a start) before all ranks dump stacks and end."""
    beat_s: Positive = 10.0
    """How often each rank writes its heartbeat."""
    probe_every_steps: Count = 100
    """How often each rank times a fixed piece of work of its own."""
    straggler_factor: Annotated[float, Field(gt=1)] = 1.3
    """Times the median of all ranks that make one a straggler."""
