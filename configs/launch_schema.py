"""The sections of a recipe that say what starts the ranks and who looks after them.

Contract: nothing here decides a weight: two runs that differ in these sections only give the same model.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.types import Count, CountOrZero, Positive, Section
from configs.units import invalid

_VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_OneLine = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
"""No newline or other control character: the value stands in a line of a script."""
_Value = Annotated[str, Field(pattern=r"^([^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?)?$")]
"""The same, without blanks at its ends, which DeepSpeed would drop."""
_SECRET = re.compile(r"(_KEY|_TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)
_OptionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


class SlurmJob(Section):
    """The job that trains on a Slurm cluster (`twofold launch --slurm`)."""

    partition: Annotated[str, Field(pattern=r"^[^\s#]+$")]
    """Partition for the training job. Example: `gpu`."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")] = "24:00:00"
    """Time limit of one run of the job, [days-]hours:minutes:seconds; it is requeued until training is done."""
    save_lead_s: Count = 300
    """How long before the limit training is told to save and stop."""
    requeues: CountOrZero = 100
    """How often the job may be requeued."""
    sbatch: dict[_OptionName, _OneLine] = Field(default={})
    """Further `#SBATCH --key=value` lines. Example: `{account: llm, gres: "gpu:8"}`."""

    @model_validator(mode="after")
    def _ranks_see_all_gpus(self) -> SlurmJob:
        if "gpus-per-task" in self.sbatch:
            problem = "has sbatch.gpus-per-task, which shows each rank a single GPU, numbered 0"
            raise invalid(problem, "use gpus-per-node or gres")
        return self


class Launch(Section):
    """Which devices train and what starts the ranks. The batch size in tokens does not depend on it."""

    nodes: Count = 1
    """Nodes that train."""
    gpus_per_node: Count = 8
    """Ranks per node with GPUs."""
    cpu_ranks: Count = 2
    """Gloo ranks per node without GPUs."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto` asks this machine, so it works for one node only."""
    launcher: Literal["deepspeed", "srun"] = "deepspeed"
    """`srun` within a Slurm job, set by `twofold launch --slurm`; otherwise `deepspeed`."""
    hostfile: str | None = None
    """DeepSpeed hostfile; needed for more than one node, except with srun."""
    slurm: SlurmJob | None = None
    """The training job on Slurm; null without Slurm."""
    environment: dict[_VariableName, _Value] = Field(default={})
    """Further environment variables for every rank. Example: `{NCCL_SOCKET_IFNAME: ib0}`."""
    environment_from: list[_VariableName] = Field(default=[])
    """Variables that every rank gets from the environment of `twofold`, such as keys; no file keeps their values.
    Example: `[WANDB_API_KEY]`."""
    restarts: CountOrZero = 0
    """How often a failed training restarts in a row without a new checkpoint in between."""
    min_nodes: Count | None = None
    """Fewest nodes that a restart may continue with if some are lost; null: all are needed."""

    @model_validator(mode="after")
    def _no_secrets(self) -> Launch:
        for name in filter(_SECRET.search, self.environment):
            problem = f"holds {name}, which reads like a secret: recipes are copied into checkpoints and reports"
            raise invalid(problem, f"export it and set launch.environment_from=[{name}]")
        return self

    @model_validator(mode="after")
    def _nodes_fit(self) -> Launch:
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            raise invalid(f"has min_nodes {self.min_nodes} above nodes {self.nodes}", "lower launch.min_nodes")
        if self.nodes > 1 and self.device == "auto":
            raise invalid(f"has {self.nodes} nodes and device auto", "say launch.device=cuda (or cpu)")
        return self


class Watch(Section):
    """When a stalled training is ended, and how ranks that hold up the others are found."""

    stall_s: Positive = 900.0
    """Longest time without progress (a step, a validation batch, a start) before all ranks dump stacks and exit."""
    beat_s: Positive = 10.0
    """How often each rank writes its heartbeat."""
    probe_every_steps: Count = 100
    """How often each rank times a fixed piece of work of its own."""
    straggler_factor: Annotated[float, Field(gt=1)] = 1.3
    """A rank that takes this many times the median of all ranks is a straggler."""
