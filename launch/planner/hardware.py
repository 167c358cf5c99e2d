"""Datasheet numbers of devices, and the share of them that training reaches.

Contract: `gpu` finds a device by name (a UserError lists the others). `Constants` are the numbers that no datasheet
has, each with its unit and source. The defaults come from publications and are labelled "assumed" wherever they are
shown; `read` replaces them by those in a file of `twofold plan --profile-hardware`, as far as it has them.
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
"""Name of the device that a constants file describes."""


@dataclass(frozen=True)
class Gpu:
    """One kind of device and how its nodes are connected; rates are per second and in one direction."""

    name: str
    memory_bytes: int
    peak_flops: float
    """Dense bf16."""
    memory_bytes_per_s: float
    link_bytes_per_s: float
    """Between devices of one node."""
    network_bytes_per_s: float
    """Of each device's own network card."""
    per_node: int = 8
    kind: str = "cuda"
    """`cpu` if torch computes on a CPU: attention then runs in float32, and nothing is compiled."""


_GBIT = 1e9 / 8
GPUS = {
    # NVIDIA's datasheets (SXM modules); memory is the total that nvidia-smi shows.
    "h100": Gpu("h100", 81_559 << 20, 989e12, 3.35e12, 450e9, 400 * _GBIT),
    "h200": Gpu("h200", 143_771 << 20, 989e12, 4.8e12, 450e9, 400 * _GBIT),
    "a100": Gpu("a100", 81_920 << 20, 312e12, 2.039e12, 300e9, 200 * _GBIT),
    "a100-40gb": Gpu("a100-40gb", 40_960 << 20, 312e12, 1.555e12, 300e9, 200 * _GBIT),
    "b200": Gpu("b200", 183_359 << 20, 2.25e15, 8e12, 900e9, 400 * _GBIT),
    # As trays of four; that NVLink joins the trays of a rack is not modelled, so transfers are overestimated.
    "gb200": Gpu("gb200", 189_471 << 20, 2.5e15, 8e12, 900e9, 400 * _GBIT, per_node=4),
    # AMD's datasheet; seven Infinity Fabric links of 64 GB/s. The trainer has not run on AMD devices.
    "mi300x": Gpu("mi300x", 196_608 << 20, 1_307e12, 5.3e12, 448e9, 400 * _GBIT),
}


def _assumed(value: float, unit: str, source: str) -> Any:
    """A field of Constants: a number that we have not measured, its unit and its source."""
    return field(default=value, metadata={"unit": unit, "source": source})


@dataclass(frozen=True)
class Constants:
    """Numbers that no datasheet has: assumed, or measured by `twofold plan --profile-hardware`."""

    matmul_share: float = _assumed(
        0.72, "of peak", "largest product seen on an H100: 798 of 989 TFLOP/s; a layer's shapes stay some 10 % below"
    )
    float8_share: float = _assumed(
        0.5, "of twice the bf16 peak", "published float8 runs gain 1.3 to 1.45, including scaling and casts"
    )
    attention_share: float = _assumed(0.5, "of peak, causal pairs", "cuDNN and FlashAttention on Hopper, head size 128")
    memory_share: float = _assumed(0.85, "of HBM's rate", "a copy reaches 3.0 of 3.35 TB/s; short kernels less")
    link_share: float = _assumed(0.84, "of NVLink's rate", "380 of 450 GB/s one way, NVIDIA/nccl issue 1264")
    network_share: float = _assumed(0.94, "of the card's rate", "46 to 48 of 50 GB/s, NVIDIA/nccl-tests issue 290")
    link_hop_s: float = _assumed(1.9e-6, "s per step of a ring", "NCCL's table (tuning.cc, NVLink, ring, LL128)")
    network_hop_s: float = _assumed(4.0e-6, "s per step of a ring", "NCCL's table (tuning.cc, network, ring, LL128)")
    collective_s: float = _assumed(14e-6, "s per call", "NCCL's table (tuning.cc, base latency, ring, LL128)")
    overlap_share: float = _assumed(
        0.7, "of compute time", "how much of it can hide transfers, which take cores and memory bandwidth from it"
    )
    pass_factor: float = _assumed(1.0, "of its parts' sum", "a measured pass relative to the sum of its parts")
    micro_batch_s: float = _assumed(0.01, "s", "launches and ZeRO-3's hooks that no kernel hides")
    step_s: float = _assumed(0.05, "s", "gradient norm, skip-step check, log line, garbage collection")
    context_bytes: float = _assumed(1.5e9, "bytes", "CUDA context, cuBLAS and cuDNN workspaces")
    communicator_bytes: float = _assumed(1.0e9, "bytes", "NCCL's channels and buffers with more than one device")
    fragmentation_share: float = _assumed(0.06, "of all tensors", "blocks that the caching allocator cannot use")
    host_copy_bytes_per_s: float = _assumed(
        4e9, "bytes/s per device", "device to pageable host memory, 8 devices at once"
    )
    disk_write_bytes_per_s: float = _assumed(2e9, "bytes/s per node", "one client of a parallel file system")
    disk_total_bytes_per_s: float = _assumed(100e9, "bytes/s", "the whole parallel file system")
    hash_bytes_per_s: float = _assumed(1e9, "bytes/s per process", "SHA-256 of the files (twofold/files.py)")
    start_s: float = _assumed(300.0, "s", "new process group, imports, weights, first compilation")
    detect_s: float = _assumed(300.0, "s", "from a failure to the launcher's restart; a hang takes watch.stall_s")
    failures_per_gpu_day: float = _assumed(
        4.7e-4, "per GPU and day", "419 unexpected interruptions in 54 days on 16,384 H100 (arXiv 2407.21783, table 5)"
    )
    measured: Mapping[str, str] = field(default_factory=dict)
    """Name -> how and where it was measured."""
    device: Gpu | None = None
    """The device they were measured on."""

    def rows(self) -> list[dict[str, str]]:
        """Name, value, unit, status (assumed or measured) and source of each, for tables."""
        return [
            {
                "constant": name,
                "value": f"{getattr(self, name):.4g}",
                "unit": assumed["unit"],
                "status": "measured" if name in self.measured else "assumed",
                "source": self.measured.get(name, assumed["source"]),
            }
            for name, assumed in ASSUMED.items()
        ]


ASSUMED = {constant.name: constant.metadata for constant in fields(Constants) if constant.metadata}
"""Unit and source of every constant's default."""


def gpu(name: str, constants: Constants | None = None) -> Gpu:
    """The device of this name; `measured` is that of the constants file."""
    if constants is not None and constants.device is not None and name == MEASURED_DEVICE:
        return constants.device
    if name not in GPUS:
        known = [*GPUS, *([MEASURED_DEVICE] if constants is not None and constants.device else [])]
        raise user_error("--gpu", name, "is not in the planner's table", f"use one of {', '.join(known)}")
    return GPUS[name]


def write(path: Path, constants: Constants, about: Mapping[str, Any]) -> None:
    """Write the measured constants; `about` records the device and the date."""
    values = {name: getattr(constants, name) for name in constants.measured}
    device = asdict(constants.device) if constants.device else None
    write_json(path, {"format": FORMAT, **about, "device": device, "values": values, "sources": constants.measured})


def read(path: Path) -> Constants:
    """The constants of a file written by `write`."""
    hint = "create it with `twofold plan RECIPE --profile-hardware FILE`"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise ValueError(f"format {raw['format']} instead of {FORMAT}")
        values = {name: float(value) for name, value in raw["values"].items()}
        device = Gpu(**raw["device"]) if raw["device"] else None
        sources = {name: str(raw["sources"][name]) for name in values}
    except FileNotFoundError:
        raise user_error("--constants", str(path), "does not exist", hint) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise user_error("--constants", str(path), f"is not a constants file ({error!r})", hint) from None
    unknown = sorted(set(values) - set(ASSUMED))
    if unknown:
        raise user_error("--constants", str(path), f"has unknown constants: {', '.join(unknown)}", hint)
    return Constants(**values, measured=sources, device=device)
