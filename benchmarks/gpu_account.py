"""Where the time of a training step goes: every millisecond in one class, the rest named idle.

Contract: `Account` profiles whole steps with torch.profiler; `account` sorts what the device did into CLASSES
by kernel name and by the labelled range of the host that launched it, and cuts the window of those steps into
moments: one in which several kernels run belongs to the first of their classes, one in which none runs is
"idle" (the host was late, or waited). So the classes add up to the step, overlap is counted once, and what a
class ran behind another one is told beside it as hidden. On a CPU the operators stand for kernels.

Names were collected from cuBLAS, cuDNN, FlashAttention, Triton, NCCL and PyTorch; a kernel that no rule
knows counts as element-wise, and `largest` lists the longest ones with their class, so that a wrong rule shows.
"""

from __future__ import annotations

import bisect
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch

CLASSES = (
    "attention", "matrix products", "loss", "norms and element-wise", "optimizer", "gather and partition", "memcpy",
)  # fmt: skip
"""In order of precedence where several run at once."""
IDLE = "idle"
_ELEMENTWISE = "norms and element-wise"

_RULES: tuple[tuple[str, str], ...] = (
    # Inductor names a fused kernel after all operators in it, those of its neighbours' layouts included.
    (_ELEMENTWISE, r"^triton_(?:poi|per|red)_(?!.*(?:log_softmax|nll|cross_entropy|logsumexp))"),
    ("gather and partition", r"nccl|all_?gather|reduce_?scatter|c10d::"),
    ("attention", r"sdpa|flash|fmha|attention|attn|_fwd_kernel_varlen"),
    ("optimizer", r"adam|multi_tensor_apply|_foreach_|lpnorm|l2norm"),
    ("loss", r"cross_entropy|softmax|nll|logsumexp|log_z"),
    (
        "matrix products",
        r"^triton_tem_\w*mm|gemm|gemv|nvjet|cutlass|splitk|s\d+816|cublas|_scaled_mm|(?:aten::|::|^)(?:b?mm|addmm|matmul|linear|mkldnn_\w*linear)\b",
    ),
    ("memcpy", r"^memcpy|^memset|aten::_to_copy|aten::copy_"),
    ("gather and partition", r"catarray|aten::cat\b"),
)
"""(class, pattern of the name in lower case); the first that matches decides."""
_RULES_COMPILED = tuple((name, re.compile(pattern)) for name, pattern in _RULES)

_PREFIX = "twofold: "
_STEP = f"{_PREFIX}step"
LABELLED: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "zero": {
        "deepspeed.runtime.zero.stage3": {
            "DeepSpeedZeroOptimizer_Stage3": (
                "reduce_independent_p_g_buckets_and_remove_grads", "partition_grads", "_prepare_sub_group",
                "independent_gradient_partition_epilogue", "_reassign_or_swap_out_partitioned_parameters",
                "_release_sub_group",
            ),
        },
        "deepspeed.runtime.zero.partitioned_param_coordinator": {
            "PartitionedParameterCoordinator": ("fetch_sub_module", "release_sub_module"),
        },
    },
    "loss": {"pretrain.model.linear_cross_entropy": {"Head": ("forward",), "_ChunkedLosses": ("backward",)}},
}  # fmt: skip
"""Label -> module -> class -> methods that are wrapped in its range: DeepSpeed's (0.19.8) and the head's."""
_OWNERS = {"zero": "gather and partition", "update": "optimizer", "loss": "loss"}
"""Label -> class of the element-wise kernels and copies that are launched inside."""


class Slice(NamedTuple):
    """One kernel or operator: microseconds on the profiler's clock; `label` of the host's range that launched it."""

    name: str
    label: str
    begin: float
    end: float


def classify(name: str, label: str = "") -> str:
    """The class of a kernel; products, attention and collectives stay what they are inside any labelled range."""
    lower = name.lower()
    found = next((kind for kind, pattern in _RULES_COMPILED if pattern.search(lower)), _ELEMENTWISE)
    movable = found in (_ELEMENTWISE, "memcpy", "loss")
    return _OWNERS.get(label, found) if movable else found


def account(slices: Iterable[Slice], begin: float, end: float, steps: int) -> dict[str, Any]:
    """Milliseconds a step by class, adding up to (end - begin) / steps; hidden ones, and the longest kernels."""
    shown: dict[str, float] = dict.fromkeys((*CLASSES, IDLE), 0.0)
    ran: dict[str, float] = dict.fromkeys(CLASSES, 0.0)
    by_name: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])
    borders: list[tuple[float, int, int]] = []
    for piece in slices:
        first, last = max(begin, piece.begin), min(end, piece.end)
        if last <= first:
            continue
        kind = classify(piece.name, piece.label)
        ran[kind] += last - first
        total = by_name[piece.name, kind]
        total[0] += last - first
        total[1] += 1
        rank = CLASSES.index(kind)
        borders += [(first, rank, 1), (last, rank, -1)]
    running = [0] * len(CLASSES)
    now = begin
    for moment, rank, change in sorted(borders):
        holder = next((CLASSES[n] for n, count in enumerate(running) if count), IDLE)
        shown[holder] += moment - now
        now = moment
        running[rank] += change
    shown[IDLE] += end - now
    scale = 1 / (1000 * steps)
    longest = sorted(by_name.items(), key=lambda item: -item[1][0])[:30]
    return {
        "step_ms": (end - begin) * scale,
        "ms": {kind: value * scale for kind, value in shown.items()},
        "share": {kind: value / (end - begin) for kind, value in shown.items()},
        "hidden_ms": {kind: (ran[kind] - shown[kind]) * scale for kind in CLASSES},
        "largest": [
            {"name": name[:120], "class": kind, "ms": total * scale, "calls": calls / steps}
            for (name, kind), (total, calls) in longest
        ],
    }


class Account:
    """Accounts `steps` whole steps; `step_begins` is called at the start of each.

    The profiler starts a step earlier, with the one of index `first_step`: its own start is not accounted.
    """

    def __init__(self, device: str, first_step: int, steps: int) -> None:
        self._device, self._first, self._steps = device, first_step, steps
        self._last = first_step + 1 + steps
        self._begun = 0
        self._profiler: Any = None
        self._trace: dict[str, Any] = {}

    def step_begins(self) -> None:
        """Mark the border between two steps; starts and ends the profile at its own."""
        index, self._begun = self._begun, self._begun + 1
        if index == self._first:
            label_methods()
            activities = [torch.profiler.ProfilerActivity.CPU]
            activities += [torch.profiler.ProfilerActivity.CUDA] if self._device == "cuda" else []
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.__enter__()
        if self._first < index <= self._last:
            with torch.profiler.record_function(_STEP):
                pass
        if index == self._last:
            self._stop()

    def label(self, name: str) -> AbstractContextManager[Any]:
        """A range of the host's time whose kernels are known by `name`."""
        return torch.profiler.record_function(_PREFIX + name)

    def result(self) -> dict[str, Any]:
        """The account; needs `steps` + 2 steps from the first profiled one on."""
        assert self._trace, "the profile has not ended"
        events = self._trace["traceEvents"]
        marks = [float(e["ts"]) for e in events if e.get("cat") == "user_annotation" and e["name"] == _STEP]
        return {"account": account(slices_of(self._trace), min(marks), max(marks), self._steps)}

    def _stop(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
        self._profiler.__exit__(None, None, None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self._profiler.export_chrome_trace(str(path))
            self._trace = json.loads(path.read_text(encoding="utf-8"))
        self._profiler = None


def slices_of(trace: Mapping[str, Any]) -> list[Slice]:
    """What ran on the device, from a Chrome trace; the innermost operators where no kernel is in it."""
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    labels = _Labels(events)
    kernels = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    if not kernels:
        operators = _by_thread(event for event in events if event.get("cat") == "cpu_op")
        return [
            piece._replace(label=labels.at(thread, piece.begin))
            for thread, own in operators.items()
            for piece in deepest(own)
        ]
    launches = {
        event["args"]["correlation"]: event
        for event in events
        if event.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in event.get("args", {})
    }
    found = []
    for event in kernels:
        launch = launches.get(event.get("args", {}).get("correlation"))
        label = labels.at(launch["tid"], float(launch["ts"])) if launch else ""
        found.append(Slice(event["name"], label, *_times(event)))
    return found


def label_methods() -> None:
    """Wrap the methods of LABELLED in labelled ranges, where they are; only ever done to profile."""
    import importlib

    for label, modules in LABELLED.items():
        for module, classes in modules.items():
            loaded = importlib.import_module(module)
            for name, methods in classes.items():
                owner = getattr(loaded, name, None)
                for method in (method for method in methods if hasattr(owner, method)):
                    setattr(owner, method, _labelled(owner.__dict__[method], label))


def _labelled(method: Any, label: str) -> Any:
    """The method within a range; static ones stay static. What it calls may still be compiled."""
    function = method.__func__ if isinstance(method, staticmethod) else method

    @torch.compiler.disable(recursive=False)
    def within(*arguments: Any, **options: Any) -> Any:
        with torch.profiler.record_function(_PREFIX + label):
            return function(*arguments, **options)

    return staticmethod(within) if isinstance(method, staticmethod) else within


class _Labels:
    """The innermost labelled range of a host thread at a time."""

    def __init__(self, events: Sequence[Mapping[str, Any]]) -> None:
        ours = [e for e in events if e.get("cat") == "user_annotation" and e["name"].startswith(_PREFIX)]
        self._by_thread = {thread: deepest(own) for thread, own in _by_thread(ours).items()}

    def at(self, thread: Any, moment: float) -> str:
        pieces = self._by_thread.get(thread, [])
        position = bisect.bisect_right(pieces, moment, key=lambda piece: piece.begin) - 1
        within = position >= 0 and moment <= pieces[position].end
        return pieces[position].name.removeprefix(_PREFIX) if within else ""


def _by_thread(events: Iterable[Mapping[str, Any]]) -> dict[Any, list[Mapping[str, Any]]]:
    found: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        found[event["tid"]].append(event)
    return found


def deepest(events: Iterable[Mapping[str, Any]]) -> list[Slice]:
    """The nested ranges of one thread cut so that each moment belongs to the deepest one, in order."""
    found: list[Slice] = []
    open_ranges: list[tuple[str, float]] = []
    now = 0.0

    def advance(until: float) -> None:
        """Give the time up to `until` to the ranges that are open, closing those that end."""
        nonlocal now
        while open_ranges:
            name, end = open_ranges[-1]
            if min(end, until) > now:
                found.append(Slice(name, "", now, min(end, until)))
                now = min(end, until)
            if end > until:
                break
            open_ranges.pop()
        now = until

    for event in sorted(events, key=lambda event: (float(event["ts"]), -float(event["dur"]))):
        begin, end = _times(event)
        advance(begin)
        open_ranges.append((event["name"], end))
    advance(float("inf"))
    return found


def _times(event: Mapping[str, Any]) -> tuple[float, float]:
    begin = float(event["ts"])
    return begin, begin + float(event["dur"])
