"""`twofold plan RECIPE --gpus N`: estimate memory, time and cost on a cluster; `--profile-hardware` measures constants.

Contract: `gpu_plan` needs neither data nor GPU; prints tables, writes one self-contained page and, if asked, JSON.
`profile_hardware` starts ranks on this machine through the real launcher
(pretrain/profiling/hardware_profile.py) and keeps what it measured as a constants file that `--constants` reads.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from configs.recipe import dump_recipe
from configs.schema import Recipe
from configs.units import format_bytes, format_count
from launch import reports, training
from launch.actions.plan import table
from launch.cluster import command_lines
from launch.outcomes import TrainingFailed
from launch.planner import estimate as planner
from launch.planner import goodput, hardware, measured
from launch.planner.estimate import Estimate, Way
from launch.planner.hardware import Constants
from launch.preflight import choose_device
from launch.reports import plots
from twofold.errors import UserError, user_error
from twofold.files import atomic_path, write_json

MODULE = "pretrain.profiling.hardware_profile"
_SWEPT = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_GB = 1e9


def gpu_plan(
    recipe: Recipe,
    gpus: int,
    name: str,
    constants: Path | None,
    out: Path | None,
    as_json: Path | None,
    console: Console,
) -> Path:
    """Print and draw what the recipe costs on `gpus` devices; return the page."""
    if gpus < 1:
        raise user_error("--gpus", gpus, "must be a positive integer", "use at least 1")
    known = hardware.read(constants) if constants else Constants()
    gpu = hardware.gpu(name, known)
    found = planner.estimate(recipe, gpus, gpu, known)
    _print(recipe, found, console)
    if as_json:
        write_json(as_json, _as_json(recipe, found, known))
    path = out or Path(recipe.run_dir) / f"plan-{gpus}-{gpu.name}.html"
    with atomic_path(path) as target:
        target.write_text(render(recipe, found, sweep(recipe, gpu, known), known), encoding="utf-8")
    return path


def profile_hardware(recipe: Recipe, path: Path, console: Console) -> Path:
    """Measure this machine's constants with the recipe's model; the file."""
    found = measure(recipe, console)
    constants = measured.constants_of(recipe, found)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    hardware.write(path, constants, {"measured_on": found["device"], "ranks": found["ranks"], "date": today})
    shown = [row for row in constants.rows() if row["status"] == "measured"]
    console.print(table(shown, ("constant", "value", "unit")))
    return path


def measure(recipe: Recipe, console: Console) -> dict[str, Any]:
    """What pretrain.profiling.hardware_profile says of the recipe on all devices of this machine."""
    device, ranks = choose_device(recipe)
    recipe = training.with_launch(recipe, nodes=1, min_nodes=None, hostfile=None, launcher="deepspeed", device=device)
    out = Path(recipe.run_dir) / "hardware-profile"
    out.mkdir(parents=True, exist_ok=True)
    result = out / measured.HARDWARE_PROFILE_FILE
    result.unlink(missing_ok=True)
    resolved = (out / "recipe.yaml").resolve()
    with atomic_path(resolved) as target:
        target.write_text(dump_recipe(recipe), encoding="utf-8")
    told = ["--recipe", str(resolved), "--out", str(out.resolve()), "--device", device]
    with console.status(f"measuring on {ranks} ranks of {device}"):
        code = training.run_quietly(recipe, command_lines.start_command(recipe, MODULE, told, out), out)
    training.raise_reported(out)
    if code or not result.exists():
        raise TrainingFailed(f"{training.log_end(out)}\n\nprofiling ended with exit code {code}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def sweep(recipe: Recipe, gpu: hardware.Gpu, constants: Constants) -> list[Estimate]:
    """The recipe on every number of devices, by powers of two, on which it fits and divides."""
    found = []
    for number in _SWEPT:
        try:
            found.append(planner.estimate(recipe, number, gpu, constants))
        except UserError:
            continue
    return found


def render(recipe: Recipe, found: Estimate, swept: Sequence[Estimate], constants: Constants) -> str:
    """The page."""
    best = found.best
    numbers = [one.ranks for one in swept]
    days, shares = [one.days for one in swept], [100 * one.best.utilisation["full"] for one in swept]
    shortest, longest = found.saving.write / 60, 24 * 60
    minutes = [shortest * (longest / shortest) ** (point / 60) for point in range(61)]
    kept = [100 * goodput.goodput(found.saving, 60 * value) for value in minutes]
    chosen = (float(found.ranks), f"{found.ranks} devices")
    memory = {_label(way): _grouped(way.footprint.causes) for way in found.ways if not way.zero_plus}
    figures = {
        "Memory of each device at the peak, GB": plots.stacked_bars(
            memory, "GB", (found.gpu.memory_bytes / 1e9, f"{found.gpu.name}: {format_bytes(found.gpu.memory_bytes)}")
        ),
        "Seconds of a step": plots.stacked_bars(
            {_label(way): _seconds(way) for way in found.ways if not way.zero_plus}, "seconds"
        ),
        "Days by number of devices": plots.lines(
            {"days": (numbers, days)}, "devices", "days", logarithmic="xy", mark=chosen
        ),
        "MFU by number of devices": plots.lines(
            {"full attention counted": (numbers, shares)},
            "devices",
            "% of the peak",
            from_zero=True,
            logarithmic="x",
            mark=chosen,
        ),
        "Goodput by checkpoint interval": plots.lines(
            {"goodput": (minutes, kept)},
            "minutes",
            "% of the time",
            logarithmic="x",
            mark=(found.interval.seconds / 60, "best"),
        ),
    }
    return reports.render(
        "gpu_plan.html",
        recipe=recipe,
        gpu=found.gpu,
        gpus=found.ranks,
        cards=[
            (f"{found.days:,.1f}", "days"),
            (f"{format_count(found.device_hours)}", "device-hours"),
            (f"{best.utilisation['full']:.1%}", "MFU, full attention counted"),
            (f"{best.tps / found.ranks:,.0f}", "tokens/s per device"),
            (format_bytes(best.footprint.total), "memory per device"),
            (f"{found.interval.goodput:.2%}", "goodput"),
        ],
        overrides=" ".join(best.overrides(recipe, found.gpu)),
        ways=_way_rows(found),
        phases=_phase_rows(found),
        costs=_cost_rows(recipe, found),
        constants=constants.rows(),
        figures={title: Markup(figure) for title, figure in figures.items()},
    )


def _print(recipe: Recipe, found: Estimate, console: Console) -> None:
    best = found.best
    console.print(
        f"[bold]{found.ranks} x {found.gpu.name}, computed[/bold]  {found.days:,.1f} days, "
        f"{format_count(found.device_hours)} device-hours, MFU {best.utilisation['full']:.1%} "
        f"({best.utilisation['causal']:.1%} causal), {best.tps / found.ranks:,.0f} tokens/s per device"
    )
    console.print(f"  [dim]{' '.join(best.overrides(recipe, found.gpu))}[/dim]", soft_wrap=True)
    for rows in (_way_rows(found), _memory_rows(best), _phase_rows(found), _cost_rows(recipe, found)):
        console.print(table(rows))


def _way_rows(found: Estimate) -> list[dict[str, str]]:
    rows = []
    for way in found.ways:
        remark = "recommended" if way is found.best else "untested here" if way.zero_plus else ""
        rows.append(
            {
                "recomputed": way.setting.recompute,
                "ZeRO++": way.zero_plus or "–",
                "sequences": str(way.setting.sequences),
                "memory": format_bytes(way.footprint.total),
                "step": f"{way.time.total:.2f} s",
                "tokens/s": f"{way.tps / found.ranks:,.0f}",
                "MFU": f"{way.utilisation['full']:.1%}",
                "": remark,
            }
        )
    return rows


def _memory_rows(way: Way) -> list[dict[str, str]]:
    causes = sorted(way.footprint.causes.items(), key=lambda cause: -cause[1])
    rows = [{"memory at the peak": name, "bytes": format_bytes(size)} for name, size in causes]
    return [*rows, {"memory at the peak": "total", "bytes": format_bytes(way.footprint.total)}]


def _phase_rows(found: Estimate) -> list[dict[str, str]]:
    return [
        {
            "phase": phase.name,
            "steps": f"{phase.steps:,}",
            "tokens": format_count(phase.tokens),
            "days": f"{phase.days / found.interval.goodput:,.1f}",
            "device-hours": format_count(phase.device_hours / found.interval.goodput),
        }
        for phase in found.phases
    ]


def _cost_rows(recipe: Recipe, found: Estimate) -> list[dict[str, str]]:
    saving = found.saving
    rows = {
        "checkpoint": f"{format_bytes(goodput.checkpoint_bytes(recipe))}, training pauses {saving.pause:.1f} s, "
        f"whole after {saving.write:.0f} s",
        "failures": f"one in {1 / saving.failures_per_s / 3600:,.1f} h, {saving.restart / 60:.0f} min each",
        "best interval": f"{found.interval.seconds / 60:.1f} min, goodput {found.interval.goodput:.2%}",
    }
    if recipe.checkpoints.every_minutes:
        minutes = recipe.checkpoints.every_minutes
        rows["the recipe's interval"] = f"{minutes:g} min, goodput {goodput.goodput(saving, 60 * minutes):.2%}"
    rows |= {name: format_bytes(size) for name, size in found.storage.items()}
    return [{"": name, "cost": value} for name, value in rows.items()]


def _as_json(recipe: Recipe, found: Estimate, constants: Constants) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "gpus": found.ranks,
        "gpu": asdict(found.gpu),
        "status": "computed",
        "days": found.days,
        "device_hours": found.device_hours,
        "recommended": {
            "overrides": found.best.overrides(recipe, found.gpu),
            "setting": asdict(found.best.setting),
            "tps_per_gpu": found.best.tps / found.ranks,
            "mfu": found.best.utilisation,
            "memory_bytes": found.best.footprint.causes,
            "step_seconds": found.best.time.causes,
            "transfer_seconds": found.best.time.transfers,
        },
        "phases": [asdict(phase) for phase in found.phases],
        "saving_seconds": asdict(found.saving),
        "checkpoint_interval": asdict(found.interval),
        "storage_bytes": found.storage,
        "ways": _way_rows(found),
        "constants": constants.rows(),
    }


def _label(way: Way) -> str:
    return f"{way.setting.recompute}, {way.setting.sequences} sequences"


def _grouped(causes: Mapping[str, int]) -> dict[str, float]:
    """GB by few enough causes to be told apart."""
    groups = {
        "weights and optimizer": ("parameters", "master weights", "moments", "whole small parameters"),
        "gradients and buckets": ("gradients", "reduce bucket", "gradients for the update", "gradients in reduction"),
        "activations": ("activations", "block in work"),
        "logits and loss": ("logits and loss",),
        "gathered weights": ("gathered weights",),
        "CUDA, NCCL, fragmentation": ("CUDA and NCCL", "fragmentation"),
    }
    assert set(causes) <= {name for names in groups.values() for name in names}
    return {group: sum(causes.get(name, 0) for name in names) / _GB for group, names in groups.items()}


def _seconds(way: Way) -> dict[str, float]:
    """Of a step, each cause of its total."""
    return {name: seconds for name, seconds in way.time.causes.items() if seconds}
