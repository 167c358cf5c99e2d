"""What devices can do by their datasheets, and the share of it that training reaches.

Contract: `gpu` finds a device by name (a UserError lists the others); `Constants` are the numbers that no
datasheet has, each with its source. Those of `ASSUMED` come from publications and are labelled "assumed"
wherever they are shown; `read` takes measured ones from the file of `twofold plan --profile-hardware`, and keeps the
assumed value of whatever was not measured there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from twofold.errors import user_error
from twofold.files import write_json

FORMAT = 1
MEASURED_DEVICE = "measured"
"""The name of the device that a constants file describes."""


@dataclass(frozen=True)
class Gpu:
    """One kind of device and how its nodes are joined; bytes and operations a second, one way."""

    name: str
    memory_bytes: int
    peak_flops: float
    """Dense bf16."""
    memory_bytes_per_s: float
    link_bytes_per_s: float
    """Between devices of one node."""
    network_bytes_per_s: float
    """Of the network card that each device has for itself."""
    per_node: int = 8
    kind: str = "cuda"
    """`cpu` where torch computes on a CPU: attention is in float32 there, and nothing is compiled."""


_GBIT = 1e9 / 8
GPUS = {
    # Datasheets of NVIDIA (SXM modules); memory is the total that nvidia-smi shows.
    "h100": Gpu("h100", 81_559 << 20, 989e12, 3.35e12, 450e9, 400 * _GBIT),
    "h200": Gpu("h200", 143_771 << 20, 989e12, 4.8e12, 450e9, 400 * _GBIT),
    "a100": Gpu("a100", 81_920 << 20, 312e12, 2.039e12, 300e9, 200 * _GBIT),
    "a100-40gb": Gpu("a100-40gb", 40_960 << 20, 312e12, 1.555e12, 300e9, 200 * _GBIT),
}


@dataclass(frozen=True)
class Assumption:
    """A number without a measurement of ours, and where it is from."""

    value: float
    unit: str
    source: str


ASSUMED: dict[str, Assumption] = {
    "matmul_share": Assumption(
        0.72, "of peak", "largest product seen on an H100: 798 of 989 TFLOP/s; a layer's shapes stay some 10 % below"
    ),
    "float8_share": Assumption(
        0.5, "of twice the bf16 peak", "published float8 runs gain 1.3 to 1.45, scaling and casts in it"
    ),
    "attention_share": Assumption(0.5, "of peak, causal pairs", "cuDNN and FlashAttention on Hopper, head size 128"),
    "memory_share": Assumption(0.85, "of HBM's rate", "a copy reaches 3.0 of 3.35 TB/s; short kernels less"),
    "link_share": Assumption(0.84, "of NVLink's rate", "380 of 450 GB/s one way, NVIDIA/nccl issue 1264"),
    "network_share": Assumption(0.94, "of the card's rate", "46 to 48 of 50 GB/s, NVIDIA/nccl-tests issue 290"),
    "link_hop_s": Assumption(1.9e-6, "s a step of a ring", "NCCL's own table (tuning.cc, NVLink, ring, LL128)"),
    "network_hop_s": Assumption(4.0e-6, "s a step of a ring", "NCCL's own table (tuning.cc, network, ring, LL128)"),
    "collective_s": Assumption(14e-6, "s a call", "NCCL's own table (tuning.cc, base latency, ring, LL128)"),
    "overlap_share": Assumption(
        0.7, "of computing time", "how much of it can hide transfers: they take cores and memory rate from it"
    ),
    "pass_factor": Assumption(1.0, "of its parts' sum", "a measured pass over what its parts should take"),
    "micro_batch_s": Assumption(0.01, "s", "launches and ZeRO-3's hooks that no kernel hides"),
    "step_s": Assumption(0.05, "s", "norm, spike guard, log line, collection of garbage"),
    "context_bytes": Assumption(1.5e9, "bytes", "CUDA context, cuBLAS and cuDNN workspaces"),
    "communicator_bytes": Assumption(1.0e9, "bytes", "NCCL's channels and buffers, more than one device"),
    "fragmentation_share": Assumption(0.06, "of all tensors", "blocks that the caching allocator cannot use"),
    "host_copy_bytes_per_s": Assumption(4e9, "bytes/s a device", "device to pageable host memory, 8 devices at once"),
    "disk_write_bytes_per_s": Assumption(2e9, "bytes/s a node", "one client of a parallel file system"),
    "disk_total_bytes_per_s": Assumption(100e9, "bytes/s", "the whole parallel file system"),
    "hash_bytes_per_s": Assumption(1e9, "bytes/s a process", "SHA-256 of what was written (twofold/files.py)"),
    "start_s": Assumption(300.0, "s", "new process group, imports, weights, first compilation"),
    "detect_s": Assumption(300.0, "s", "from a failure to the launcher's restart; a hang takes watch.stall_s"),
    "failures_per_gpu_day": Assumption(
        4.7e-4, "a GPU and day", "419 unexpected ends in 54 days on 16,384 H100 (arXiv 2407.21783, table 5)"
    ),
}  # fmt: skip
"""Every constant's value where nothing was measured."""


@dataclass(frozen=True)
class Constants:
    """Values of ASSUMED's names, measured ones in their place; see ASSUMED for units."""

    matmul_share: float = ASSUMED["matmul_share"].value
    float8_share: float = ASSUMED["float8_share"].value
    attention_share: float = ASSUMED["attention_share"].value
    memory_share: float = ASSUMED["memory_share"].value
    link_share: float = ASSUMED["link_share"].value
    network_share: float = ASSUMED["network_share"].value
    link_hop_s: float = ASSUMED["link_hop_s"].value
    network_hop_s: float = ASSUMED["network_hop_s"].value
    collective_s: float = ASSUMED["collective_s"].value
    overlap_share: float = ASSUMED["overlap_share"].value
    pass_factor: float = ASSUMED["pass_factor"].value
    micro_batch_s: float = ASSUMED["micro_batch_s"].value
    step_s: float = ASSUMED["step_s"].value
    context_bytes: float = ASSUMED["context_bytes"].value
    communicator_bytes: float = ASSUMED["communicator_bytes"].value
    fragmentation_share: float = ASSUMED["fragmentation_share"].value
    host_copy_bytes_per_s: float = ASSUMED["host_copy_bytes_per_s"].value
    disk_write_bytes_per_s: float = ASSUMED["disk_write_bytes_per_s"].value
    disk_total_bytes_per_s: float = ASSUMED["disk_total_bytes_per_s"].value
    hash_bytes_per_s: float = ASSUMED["hash_bytes_per_s"].value
    start_s: float = ASSUMED["start_s"].value
    detect_s: float = ASSUMED["detect_s"].value
    failures_per_gpu_day: float = ASSUMED["failures_per_gpu_day"].value
    measured: Mapping[str, str] = field(default_factory=dict)
    """Name -> how and where it was measured."""
    device: Gpu | None = None
    """What they were measured on."""

    def rows(self) -> list[dict[str, str]]:
        """Name, value, unit, and whether it is assumed or measured, for tables."""
        return [
            {
                "constant": name, "value": f"{getattr(self, name):.4g}", "unit": assumed.unit,
                "status": "measured" if name in self.measured else "assumed",
                "source": self.measured.get(name, assumed.source),
            }
            for name, assumed in ASSUMED.items()
        ]  # fmt: skip


def gpu(name: str, constants: Constants | None = None) -> Gpu:
    """The device of this name; `measured` is the one of the constants file."""
    if constants is not None and constants.device is not None and name == MEASURED_DEVICE:
        return constants.device
    if name not in GPUS:
        known = [*GPUS, *([MEASURED_DEVICE] if constants is not None and constants.device else [])]
        raise user_error("--gpu", name, "is not in the planner's table", f"use one of {', '.join(known)}")
    return GPUS[name]


def write(path: Path, constants: Constants, about: Mapping[str, Any]) -> None:
    """Keep measured constants; `about` says on what and when."""
    values = {name: getattr(constants, name) for name in constants.measured}
    device = asdict(constants.device) if constants.device else None
    write_json(path, {"format": FORMAT, **about, "device": device, "values": values, "sources": constants.measured})


def read(path: Path) -> Constants:
    """The constants of a file that `write` made."""
    hint = "make it anew with `twofold plan RECIPE --profile-hardware FILE`"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise ValueError("another format")
        values = {name: float(value) for name, value in raw["values"].items()}
        device = Gpu(**raw["device"]) if raw["device"] else None
        sources = {name: str(raw["sources"][name]) for name in values}
    except FileNotFoundError:
        raise user_error("--constants", str(path), "does not exist", hint) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise user_error("--constants", str(path), f"is no file of constants ({error!r})", hint) from None
    unknown = sorted(set(values) - {one.name for one in fields(Constants)} | (set(values) - set(ASSUMED)))
    if unknown:
        raise user_error("--constants", str(path), f"has unknown constants: {', '.join(unknown)}", hint)
    return Constants(**values, measured=sources, device=device)
