"""One case, one process: what a case leaves in a device's memory ends with it, and so does what it breaks.

Contract: `Runner.run(case)` starts `python -m benchmarks.gpu_process SPEC.json OUT.json` and returns the JSON
that it wrote, always: with `error` (one line) where the case ran out of memory, lacked a package, took too long
or died. `Runner.seconds_left` is what remains of the call's time; a case that cannot be started any more is
"not run". Processes of one runner share a folder: compiled kernels and token shards are made once.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_cases import ROOT, Case
from twofold.files import write_json

NOT_RUN = "not run"
LEAST_SECONDS = 30.0
"""No case is started with less time left."""
_LOG_TAIL_BYTES = 1500


class Runner:
    """Runs cases one after the other below `folder`, until `minutes` are over."""

    def __init__(self, folder: Path, minutes: float, case_timeout_s: float) -> None:
        self._folder = folder
        self._deadline = time.monotonic() + 60 * minutes
        self._case_timeout_s = case_timeout_s
        self._started = 0
        self.peak_tflops: float | None = None

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def run(self, case: Case) -> dict[str, Any]:
        """The case's result, or `{"case", "error"}`."""
        if self.seconds_left < LEAST_SECONDS:
            return {"case": case.as_json(), "error": f"{NOT_RUN}: the call's time was over"}
        self._started += 1
        folder = self._folder / f"case-{self._started:02d}"
        folder.mkdir(parents=True)
        spec, out, log = folder / "spec.json", folder / "out.json", folder / "log"
        shared = str(self._folder / "shared")
        write_json(spec, {"case": case.as_json(), "shared": shared, "peak_tflops": self.peak_tflops})
        limit = min(self._case_timeout_s, self.seconds_left)
        began = time.monotonic()
        ended = self._child([str(spec), str(out)], case, log, limit)
        found = (
            json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"case": case.as_json(), "error": ended}
        )
        if "error" in found:
            found["log"] = _tail(log)
        return {**found, "process_seconds": round(time.monotonic() - began, 1)}

    def _child(self, arguments: list[str], case: Case, log: Path, limit_s: float) -> str:
        """Run it to its end or the limit; how it ended."""
        command = [sys.executable, "-m", "benchmarks.gpu_process", *arguments]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(case.device, self._folder), stdin=subprocess.DEVNULL,
                stdout=stream, stderr=stream,
            )  # fmt: skip
            try:
                return f"the process ended with {process.wait(timeout=limit_s)}"
            except subprocess.TimeoutExpired:
                return f"took longer than {limit_s:.0f} s"
            finally:
                process.kill()
                process.wait()


def environment(device: str, folder: Path) -> dict[str, str]:
    """A process group of one, without a launcher; one cache of compiled kernels for all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Threads that spin while they wait take the cores of a busy machine from each other.
    waiting = {"OMP_WAIT_POLICY": "PASSIVE"} if device == "cpu" else {}
    return {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "DS_ACCELERATOR": device, "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore::FutureWarning", **waiting,
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        "TRITON_CACHE_DIR": str(folder / "compiled" / "triton"),
    }  # fmt: skip


def measure(case: Case, shared: Path, folder: Path, peak_tflops: float | None) -> dict[str, Any]:
    """The case's result, measured in this process."""
    if case.contestant == "peaks":
        from benchmarks import gpu_peaks

        return gpu_peaks.measure(case)
    if case.contestant == "plain":
        from benchmarks import gpu_plain

        return gpu_plain.measure(case, peak_tflops)
    if case.contestant == "transformers":
        from benchmarks import gpu_peers

        return gpu_peers.measure(case, peak_tflops)
    assert case.contestant == "ours", case.contestant
    from benchmarks import gpu_ours

    return gpu_ours.measure(case, shared, folder, peak_tflops)


def main() -> None:
    spec_file, out = (Path(argument) for argument in sys.argv[1:3])
    spec = json.loads(spec_file.read_text(encoding="utf-8"))
    case = Case.from_json(spec["case"])
    try:
        found = measure(case, Path(spec["shared"]), out.parent, spec["peak_tflops"])
    except Exception as error:  # whatever it is, the other cases go on
        import traceback

        traceback.print_exc()
        first_line = (str(error).strip().splitlines() or [""])[0]
        found = {"case": case.as_json(), "error": f"{type(error).__name__}: {first_line[:400]}"}
    write_json(out, found)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the interpreter's teardown may wait for threads of the process group


def _tail(path: Path) -> str:
    return path.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", errors="replace")


if __name__ == "__main__":
    main()
