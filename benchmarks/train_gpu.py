"""Training speed on one GPU, beside the strongest peers on the same GPU in the same run.

    python -m benchmarks.train_gpu --json OUT [--part peaks …] [--layers N] [--minutes M]
    python -m benchmarks.train_gpu --json OUT --tiny --device cpu      every part at toy shapes, to try the benchmark

Parts, in this order; without --part all of them:
    peaks     what matrix products and copies reach on this very GPU
    layers    how many layers of EXAONE 3.0's 7.8 B shape fit; their speed and that of half of them, from which
              the speed of all 32 is projected
    ours      our trainer as users start it (gpu_ours.py): micro-batches and recomputation tried in bf16; the best
              again with documents masked, in float8, and with plain kernels
    account   where the time of the best one's step goes, in bf16 and float8 (gpu_account.py)
    memory    bytes by cause, from two numbers of layers and two micro-batches
    peers     plain PyTorch without ZeRO (gpu_plain.py) and transformers on DeepSpeed (gpu_peers.py), same layers and
              tokens, each at its best micro-batch; ours once more between them

Contract: each case is a process of its own (gpu_process.py); what fails or finds no time is in the JSON with its
message and the rest goes on. OUT is written whole after each case. Where OUT is there already and of the same
device, its other parts are kept, so that a lease of short calls adds up to one file. docs/performance.md says what
each number means.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import gpu_cases
from benchmarks.common import CONSOLE, machine
from benchmarks.gpu_cases import Case, Outcome
from benchmarks.gpu_process import Runner
from twofold.errors import UserError, user_error
from twofold.exit_codes import EXIT_CODE_USER_ERROR
from twofold.files import write_json

DATASHEET_TFLOPS = {"H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "H200": 989.0}
"""Dense bf16 by part of the device's name, the first that fits: what published MFU is a share of."""
ACCOUNT_STEPS = 4
"""One while the profiler starts, two that are accounted, one that ends them."""
_TABLE_WIDTH = 150
COMPARED = ("tps", "mfu", "mfu_causal", "share_of_measured_peak")


class Bench:
    """The cases of one call, and the file that they go into."""

    def __init__(self, options: argparse.Namespace, runner: Runner) -> None:
        self._runner, self._out = runner, options.json
        steps = {"warmup": 3, "steps": 2, "sequences": 4} if options.tiny else {}
        self.base = Case("ours", device=options.device, tiny=options.tiny, micro_batch=options.micro_batch, **steps)
        self.result: dict[str, Any] = {
            "benchmark": "train_gpu", "tiny": options.tiny, "asked_device": options.device, "cases": {}, "parts": {},
            **_earlier(options), "machine": machine(), "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        if options.layers:
            self.result["layers"] = options.layers
        runner.peak_tflops = self.result.get("peak_tflops_datasheet")

    def run(self, case: Case) -> dict[str, Any]:
        """Run, keep, tell."""
        found = self._runner.run(case)
        peak = self.result.get("device", {}).get("peak_tflops", {}).get("bf16")
        if peak and "tflops_full_attention" in found:
            found["share_of_measured_peak"] = found["tflops_full_attention"] / peak
        self.result["cases"][case.name] = _kept(self.result["cases"].get(case.name), found)
        self.save()
        CONSOLE.print(f"{found.get('process_seconds', 0):6.1f} s  {_told(case, found)}", soft_wrap=True)
        return found

    def save(self) -> None:
        self.result.update(_compared(self.result))
        if self._out:
            write_json(self._out, self.result)

    @property
    def layers(self) -> int:
        """As given, found in an earlier call, or searched now."""
        if "layers" not in self.result:
            self.result["parts"]["layers"] = layers_part(self)
        found: int = self.result["layers"]
        return found

    def cases(self, contestant: str, layers: int | None = None, **fields: Any) -> dict[str, Outcome]:
        """Successful cases of this contestant whose fields have these values."""
        layers = layers or self.result.get("layers")
        wanted = {"contestant": contestant, "layers": layers, "part": "", **fields}
        return {
            name: found
            for name, found in self.result["cases"].items()
            if "error" not in found and all(found["case"][key] == value for key, value in wanted.items())
        }

    def best(self, contestant: str, **fields: Any) -> Case | None:
        """The fastest of them."""
        found = self.cases(contestant, **fields)
        fastest = max(found.values(), key=lambda outcome: outcome["tps"], default=None)
        return Case.from_json(fastest["case"]) if fastest else None

    def best_of_ours(self) -> Case:
        """Our fastest bf16 case, or the one that would be tried first."""
        joined = {"precision": "bf16", "masked": False, "backend": "auto"}
        return self.best("ours", **joined) or replace(self.base, layers=self.layers)


def _kept(earlier: Outcome | None, found: dict[str, Any]) -> dict[str, Any]:
    """A case that ran twice: the later figures, beside the earlier speeds; a failure never hides a success."""
    if earlier is None or "tps" not in earlier:
        return found
    if "error" in found:
        return {**earlier, "later_error": found["error"]}
    return {**found, "earlier_tps": [*earlier.get("earlier_tps", ()), earlier["tps"]]}


def peaks_part(bench: Bench) -> dict[str, Any]:
    found = bench.run(Case("peaks", device=bench.base.device, tiny=bench.base.tiny))
    if "error" not in found:
        bench.result["device"] = found
        named = (tflops for name, tflops in DATASHEET_TFLOPS.items() if name in found["device"])
        bench.result["peak_tflops_datasheet"] = bench._runner.peak_tflops = next(named, None)
    return {key: found[key] for key in ("error", "peak_tflops", "copy_gb_per_s") if key in found}


def layers_part(bench: Bench) -> dict[str, Any]:
    """Search, then half as many; the line through both."""
    if "device" not in bench.result and "layers" not in bench.result:
        peaks_part(bench)
    memory = bench.result.get("device", {}).get("memory_bytes", 0)

    def run(layers: int) -> Outcome:
        return bench.run(replace(bench.base, layers=layers))

    if "layers" in bench.result:
        run(bench.result["layers"])
    else:
        guess = 4 if bench.base.tiny else gpu_cases.guessed_layers(bench.base, memory)
        layer_bytes = gpu_cases.bytes_per_layer(bench.base)
        found = gpu_cases.most_layers(guess, 0 if bench.base.tiny else memory, layer_bytes, run)
        bench.result["layers"] = found or guess
    layers = bench.result["layers"]
    half = bench.run(replace(bench.base, layers=max(1, layers // 2)))
    whole = bench.result["cases"].get(replace(bench.base, layers=layers).name, {"error": "was not run"})
    if layers < 2 or "error" in half or "error" in whole:
        return {"layers": layers, "error": "no projection: the two numbers of layers did not both run"}
    peak = bench.result.get("peak_tflops_datasheet")
    return {"layers": layers, "projection": gpu_cases.projection(half, whole, peak)}


def ours_part(bench: Bench) -> dict[str, Any]:
    """Micro-batches and recomputation that did not run in an earlier call, then the best one's variants."""
    for case in list(_choices(replace(bench.base, layers=bench.layers)))[: 2 if bench.base.tiny else 5]:
        if case.name not in bench.cases("ours"):
            bench.run(case)
    best = bench.best_of_ours()
    for changes in (
        {"precision": "float8"}, {"masked": True}, {"backend": "plain"}, {"precision": "float8", "masked": True},
    ):  # fmt: skip
        bench.run(replace(best, **changes))
    return {"best": best.name}


def account_part(bench: Bench) -> dict[str, Any]:
    best = bench.best_of_ours()
    found = {
        precision: bench.run(replace(best, precision=precision, steps=ACCOUNT_STEPS, part="account"))
        for precision in ("bf16", "float8")
    }
    return {precision: outcome.get("account", outcome.get("error")) for precision, outcome in found.items()}


def memory_part(bench: Bench) -> dict[str, Any]:
    """Four runs for each way to recompute: two numbers of layers, two micro-batches."""
    few, more = 2, 4
    found: dict[str, Any] = {}
    for recompute in (False,) if bench.base.tiny else (False, "selective", True):
        runs = {
            (layers, micro): bench.run(
                replace(
                    bench.base, layers=layers, micro_batch=micro, sequences=2 * micro, recompute=recompute,
                    steps=1, part="memory",
                )
            )
            for layers in (few, more)
            for micro in (1, 2)
        }  # fmt: skip
        failed = next((run["error"] for run in runs.values() if "error" in run), None)
        kind = {False: "kept", True: "recomputed"}.get(recompute, str(recompute))
        found[kind] = {"error": failed} if failed else _bytes_by_cause(runs, few, more)
    return found


def _bytes_by_cause(runs: Mapping[tuple[int, int], Outcome], few: int, more: int) -> dict[str, Any]:
    """Differences, so that what all runs share (context, buffers) cancels; `peak_bytes` are the runs' own."""

    def stage(name: str, layers: int, micro: int) -> float:
        value: float = runs[layers, micro]["memory_stages_bytes"][name]
        return value

    def per_parameter(difference: Callable[[int], float]) -> float:
        parameters = runs[more, 1]["parameters"] - runs[few, 1]["parameters"]
        return (difference(more) - difference(few)) / parameters

    def of_a_sequence(layers: int) -> float:
        return stage("step_3_accumulate_peak", layers, 2) - stage("step_3_accumulate_peak", layers, 1)

    layer = (of_a_sequence(more) - of_a_sequence(few)) / (more - few)
    return {
        "bytes_per_parameter": {
            "weights, masters and buffers": per_parameter(lambda n: stage("after_weights", n, 1)),
            "gradients": per_parameter(lambda n: stage("step_1_accumulate_after", n, 1) - stage("after_weights", n, 1)),
            "moments": per_parameter(
                lambda n: stage("step_1_apply_after", n, 1) - stage("step_1_accumulate_after", n, 1)
            ),
            "working memory of the update": per_parameter(
                lambda n: stage("step_3_apply_peak", n, 1) - stage("step_3_apply_after", n, 1)
            ),
            "all that stays": per_parameter(lambda n: stage("step_3_apply_after", n, 1)),
        },
        "activation_bytes_per_sequence_and_layer": layer,
        "activation_bytes_per_sequence_besides": of_a_sequence(few) - few * layer,
        "peak_bytes": {
            f"{layers} layers, {micro} a micro-batch": run["peak_allocated_bytes"]
            for (layers, micro), run in runs.items()
        },
    }


def peers_part(bench: Bench) -> dict[str, Any]:
    """Each peer at the first choices that its memory allows, ours between them."""
    first = replace(bench.base, layers=bench.layers)
    plain = replace(first, contestant="plain")
    _until_enough_run(bench, plain)
    bench.run(bench.best_of_ours())
    _until_enough_run(bench, replace(first, contestant="transformers"))
    fastest = bench.best("plain", masters="float32", precision="bf16") or plain
    for changes in ({"masters": "autocast"}, {"masters": "none"}, {"precision": "float8"}):
        bench.run(replace(fastest, **changes))
    return {"layers": bench.layers}


def _until_enough_run(bench: Bench, first: Case) -> None:
    """Two choices that fit; one in a tiny run."""
    ran = 0
    for case in _choices(first):
        ran += "error" not in bench.run(case)
        if ran == (1 if bench.base.tiny else 2):
            return


def _choices(first: Case) -> Iterator[Case]:
    """Micro-batch and recomputation: what keeps the activations first, then what makes room for more at once."""
    yield first
    if first.micro_batch > 1:
        yield replace(first, micro_batch=first.micro_batch // 2)
    if first.contestant == "ours":
        yield replace(first, recompute="selective")
        yield replace(first, micro_batch=2 * first.micro_batch, recompute="selective")
    yield replace(first, micro_batch=2 * first.micro_batch, recompute=True)
    yield replace(first, recompute=True)


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "peaks": peaks_part, "layers": layers_part, "ours": ours_part, "account": account_part, "memory": memory_part,
    "peers": peers_part,
}  # fmt: skip


def _compared(result: Mapping[str, Any]) -> dict[str, Any]:
    """`ours`, `peers` and `ratio` by precision: the fastest case of each, at the one number of layers."""
    fastest: dict[str, dict[str, Outcome]] = {}
    for found in result["cases"].values():
        case = Case.from_json(found["case"])
        compared = "tps" in found and case.layers == result.get("layers")
        if not compared or case.masked or case.part or case.backend != "auto":
            continue
        peer = f"plain PyTorch, masters {case.masters}" if case.contestant == "plain" else case.contestant
        same = fastest.setdefault(case.precision, {})
        if found["tps"] > same.get(peer, {}).get("tps", 0.0):
            same[peer] = found
    ours = {precision: found["ours"] for precision, found in fastest.items() if "ours" in found}
    peers = {
        precision: {peer: _shown(outcome) for peer, outcome in found.items() if peer != "ours"}
        for precision, found in fastest.items()
    }
    ratio = {
        precision: {peer: outcome["tps"] / theirs["tps"] for peer, theirs in peers[precision].items()}
        for precision, outcome in ours.items()
    }
    return {"ours": {precision: _shown(outcome) for precision, outcome in ours.items()}, "peers": peers, "ratio": ratio}


def _shown(outcome: Outcome) -> dict[str, Any]:
    figures = {key: outcome.get(key) for key in COMPARED}
    return {**figures, "peak_allocated_gib": outcome["peak_allocated_bytes"] / 2**30, "case": outcome["case"]}


def _earlier(options: argparse.Namespace) -> dict[str, Any]:
    """What OUT holds of earlier calls with the same device and shapes."""
    if not options.json or not options.json.exists():
        return {}
    found: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8"))
    same = found.get("tiny") == options.tiny and found.get("asked_device") == options.device
    return found if same else {}


def _told(case: Case, found: Outcome) -> str:
    if "error" in found:
        return f"{case.name}: {found['error']}"
    if "tps" not in found:
        return case.name
    mfu = found["mfu"]
    return f"{case.name}: {found['tps']:,.0f} tokens/s" + (f", MFU {mfu:.1%}" if mfu else "")


def table(result: Mapping[str, Any]) -> Table:
    """All cases that ran, a line each."""
    shown = Table("case", "tokens/s", "MFU full", "MFU causal", "of measured peak", "peak GiB", box=None)
    for name, found in result["cases"].items():
        if "tps" in found:
            shares = [found.get(key) for key in COMPARED[1:]]
            cells = ["–" if share is None else f"{share:.1%}" for share in shares]
            shown.add_row(name, f"{found['tps']:,.0f}", *cells, f"{found['peak_reserved_bytes'] / 2**30:.1f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        _check_device(options.device)
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_CODE_USER_ERROR
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Runner(Path(folder), options.minutes, options.case_timeout_s))
        for part in PARTS:
            if part in (options.part or PARTS):
                bench.result["parts"][part] = PARTS[part](bench)
                bench.save()
    Console(width=_TABLE_WIDTH, highlight=False).print(table(bench.result))
    for name, found in bench.result["cases"].items():
        if "error" in found:
            CONSOLE.print(f"failed  {name}: {found['error']}", soft_wrap=True)
    return 0


def _check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise user_error(
            "--device", device, "finds no CUDA device", "run where there is one, or add --tiny --device cpu"
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result here, after each case")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), help="only these (default: all)")
    parser.add_argument("--layers", type=int, help="do not search: this many")
    parser.add_argument("--micro-batch", type=int, default=2, help="sequences of the first try (default 2)")
    parser.add_argument("--minutes", type=float, default=120, help="start no case after so long (default 120)")
    parser.add_argument("--case-timeout-s", type=float, default=240, help="longest case (default 240)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy shapes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
