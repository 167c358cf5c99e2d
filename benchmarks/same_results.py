"""Check that two revisions compute the same results, allowing nothing but new names.

    python -m benchmarks.same_results OLD_REV NEW_REV [--recipe configs/smoke.yaml …] [--set KEY=VALUE …]
    python -m benchmarks.same_results --runs OLD_RUN_DIR NEW_RUN_DIR [--json OUT]

Exit code: 0 if everything is equal, 1 if something differs, 2 if there is nothing to compare.

Two files are equal if their bytes are, or if their contents are once old names are replaced by new ones
(`STAGES`, `PATHS`, `NAMES`): Parquet is compared by column and row with exact values and types, JSON by value,
safetensors by tensor. Ignored are fields and events that differ between two runs of one revision (`VOLATILE`,
`VOLATILE_EVENTS`), recipes, manifests, logs, W&B folders and HTML pages. If a stage no longer exists, its files
may be in any other stage, at the same path. This script imports nothing from the repository, so it can compare
revisions whose modules are in different places.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent

STAGES = {"decide": "filter", "keep": "write"}
PATHS = {"ledger": "decisions", "ledger.json": "token_counts.json"}
"""Old name -> new name of stages, and of folders and files within any stage."""
NAMES = {
    "licence": "license",
    "pii_driver_licence": "pii_driver_license",
    "learning_rate": "lr",
    "gradient_norm": "grad_norm",
    "gradient_norm_limit": "grad_norm_limit",
    "tokens_per_s": "tps",
    "mfu_full_attention": "mfu",
    "mfu_causal_attention": "mfu_causal",
    "data_wait_share": "data_loading_pct",
    "without_effect": "skipped",
    "tokens_without_effect": "skipped_tokens",
    "passed_over": "skipped_after_rollback",
    "first_passed_over": "first_skipped",
    "last_passed_over": "last_skipped",
    "letter_word_share": "alpha_word_ratio",
    "letter_token_share": "alpha_token_ratio",
    "hash_per_word": "hash_to_word_ratio",
    "ellipsis_per_word": "ellipsis_to_word_ratio",
    "line_breaks_per_word": "new_line_ratio",
    "duplicate_line_share": "dup_line_frac",
    "duplicate_line_char_share": "dup_line_char_frac",
    "duplicate_paragraph_share": "dup_para_frac",
    "duplicate_paragraph_char_share": "dup_para_char_frac",
    **{f"duplicate_{n}gram_char_share": f"dup_{n}gram_char_frac" for n in range(5, 11)},
}
"""Old name -> new name of Parquet columns, JSON keys, events and features in reasons; any other `_share` is `_frac`."""

VOLATILE = re.compile(r"time|\w*seconds|\w+_s|tps|mfu\w*|data_loading_pct|memory_bytes|pid|host|tokenizer_identity")
"""Keys, under their new names, that hold times, speeds, memory, processes, hosts and artifact identities."""
VOLATILE_EVENTS = frozenset({"straggler", "stall", "warning"})
"""Events in metrics.jsonl that depend on the machine's speed, or are messages to people."""
_IGNORED = re.compile(r"(.*/)?(manifest\.json|recipe\.yaml)|.*\.(html|log)|(wandb|beats|stalls|times)/.*|wandb-run-id")
_VOCABULARIES = frozenset({"tokenizer.json", "tiktoken.json"})  # their keys are tokens, so no name is replaced


class UnusableError(Exception):
    """There is nothing to compare. The message is one line, for the user."""


@dataclass
class StageResult:
    """How the files of one stage compare. Each entry of `different` is a file and its first difference."""

    compared: int = 0
    same_bytes: int = 0
    new_names_only: int = 0
    different: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print the result and return the exit code."""
    options = _options(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="same-results-") as temporary:
            if options.runs:
                found = {options.new: compare_runs(Path(options.old), Path(options.new))}
            else:
                work = (options.work or Path(temporary)).resolve()
                found = compare_revisions(options.old, options.new, options.recipe, work, options.overrides)
    except UnusableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    equal = not any(stage.different for stages in found.values() for stage in stages.values())
    for name, stages in found.items():
        _print(name, stages)
    print("All results are equal." if equal else "Results differ.")
    if options.json:
        data = {"old": options.old, "new": options.new, "equal": equal, "results": found}
        options.json.write_text(json.dumps(data, ensure_ascii=False, indent=2, default=asdict) + "\n", encoding="utf-8")
    return 0 if equal else 1


def compare_revisions(
    old: str, new: str, recipes: Sequence[str], work: Path, overrides: Sequence[str] = ()
) -> dict[str, dict[str, StageResult]]:
    """Run each recipe at both revisions, in `work`, and compare the runs by stage."""
    with _checkout(old, work / "old") as old_tree, _checkout(new, work / "new") as new_tree:
        return {
            recipe: compare_runs(_run(old_tree, recipe, overrides), _run(new_tree, recipe, overrides))
            for recipe in recipes
        }


def compare_runs(old_run: Path, new_run: Path) -> dict[str, StageResult]:
    """Compare two run folders by stage. A stage goes by its new name, or by its old one if it no longer exists."""
    old, new = files_of(old_run), files_of(new_run)
    new_stages = {stage for stage, _ in new}
    moved = {path: (stage, path) for stage, path in new if (stage, path) not in old}
    matched: set[tuple[str, str]] = set()
    results: dict[str, StageResult] = {}
    for (stage, path), file in old.items():
        key = (stage, path) if stage in new_stages else moved.pop(path, (stage, path))
        matched.add(key)
        _compare(path, file, new.get(key), results.setdefault(stage, StageResult()))
    for stage, path in (key for key in new if key not in matched):
        results.setdefault(stage, StageResult()).different.append(f"{path}: is only in the new run")
    return results


def files_of(run: Path) -> dict[tuple[str, str], Path]:
    """Map new stage names and new paths to the files of all artifacts that the run folder links to."""
    links = sorted(path for path in run.iterdir() if path.is_symlink() and path.is_dir()) if run.is_dir() else []
    files: dict[tuple[str, str], Path] = {}
    for link in links:
        artifact = link.resolve()
        for file in sorted(path for path in artifact.rglob("*") if path.is_file()):
            path = file.relative_to(artifact)
            if _IGNORED.fullmatch(path.as_posix()):
                continue
            key = (STAGES.get(link.name, link.name), "/".join(PATHS.get(part, part) for part in path.parts))
            if key in files:
                raise UnusableError(f"{file} and {files[key]} get the same new name: fix STAGES or PATHS")
            files[key] = file
    if not files:
        raise UnusableError(f"{run} is not a run folder: it has no links to artifacts with files")
    return files


def first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """Find the first difference between two JSON values. Floats must agree to the last bit, and 1 is not 1.0."""
    if repr(old) == repr(new):
        return None
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f"{where}: {old!r:.100} is now {new!r:.100}"
    for key in old | new:
        place = f"{where}.{key}" if where else str(key)
        if key not in old or key not in new:
            return f"{place} is only in the {'old' if key in old else 'new'} run"
        if found := first_difference(old[key], new[key], place):
            return found
    return None


def rename(name: str) -> str:
    """Return the new name of a key or column. In a reason such as `hangul_share<0.25`, the feature is renamed."""
    return re.sub(r"^\w+", lambda found: NAMES.get(found[0], re.sub("_share$", "_frac", found[0])), name)


def canonical(value: Any, key: str = "") -> Any:
    """Replace old names in the JSON value stored under `key`, and drop volatile keys."""
    if isinstance(value, dict):
        # A key keeps its old name if the new one is in use beside it.
        renamed = {old if (new := rename(old)) in value else new: inner for old, inner in value.items()}
        return {name: canonical(inner, name) for name, inner in renamed.items() if not VOLATILE.fullmatch(name)}
    if isinstance(value, list):
        return [canonical(inner, key) for inner in value]
    return rename(value) if isinstance(value, str) and key in ("event", "reason", "reasons") else value


def _compare(path: str, old: Path, new: Path | None, result: StageResult) -> None:
    """Compare one file and add the outcome to `result`."""
    if new is None:
        result.different.append(f"{path}: is missing in the new run")
        return
    result.compared += 1
    if filecmp.cmp(old, new, shallow=False):
        result.same_bytes += 1
        return
    read = None if old.name in _VOCABULARIES else _READERS.get(old.suffix)
    try:
        difference = first_difference(read(old), read(new)) if read else _byte_difference(old, new)
    except (ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors, too
        difference = f"cannot be read ({str(error).splitlines()[0]})"
    if difference is None:
        result.new_names_only += 1
    else:
        result.different.append(f"{path}: {difference}")


def _byte_difference(old: Path, new: Path) -> str:
    left, right = old.read_bytes(), new.read_bytes()
    pairs = enumerate(zip(left, right, strict=False))
    at = next((n for n, (one, other) in pairs if one != other), min(len(left), len(right)))
    return f"byte {at}: {left[at : at + 4].hex() or 'the end'} is now {right[at : at + 4].hex() or 'the end'}"


def _read_json_lines(path: Path) -> dict[str, list[Any]]:
    """Group lines by event: when a checkpoint is committed, relative to other events, depends on the disk."""
    lines: dict[str, list[Any]] = {}
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        value = canonical(json.loads(line))
        event = str(value.get("event", "line")) if isinstance(value, dict) else "line"
        if event not in VOLATILE_EVENTS:
            lines.setdefault(event, []).append(value)
    return lines


def _read_columns(path: Path) -> dict[str, list[Any]]:
    """Return the names and types of all columns, in order, and the values of each column."""
    table = pq.read_table(path)
    columns = [(rename(name), column) for name, column in zip(table.column_names, table.columns, strict=True)]
    values = {name: canonical(column.to_pylist(), name) for name, column in columns}
    return {"columns": [f"{name}: {column.type}" for name, column in columns], **values}


def _read_tensors(path: Path) -> dict[str, list[Any]]:
    """Return dtype, shape and hash of each tensor; see https://github.com/huggingface/safetensors#format."""
    raw = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    entries = json.loads(bytes(raw[8:start]))
    entries.pop("__metadata__", None)
    tensors = {}
    for name, entry in entries.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        tensors[name] = [entry["dtype"], entry["shape"], hashlib.sha256(raw[begin:end]).hexdigest()]
    return tensors


_READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: canonical(json.loads(path.read_text(encoding="utf-8"))),
    ".jsonl": _read_json_lines,
    ".parquet": _read_columns,
    ".safetensors": _read_tensors,
}


@contextlib.contextmanager
def _checkout(revision: str, folder: Path) -> Iterator[Path]:
    """Add a git worktree for the time of the context, with a link to the development corpus next to it."""
    git = ["git", "-C", str(ROOT), "worktree"]
    added = subprocess.run([*git, "add", "--detach", "--force", folder, revision], capture_output=True, text=True)
    if added.returncode:
        raise UnusableError(f"git cannot check out {revision} ({added.stderr.strip().splitlines()[-1]})")
    shared = folder.parent / "shared"
    if not shared.exists() and (ROOT.parent / "shared").exists():
        shared.symlink_to((ROOT.parent / "shared").resolve())
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", folder], check=True)


def _run(tree: Path, recipe: str, overrides: Sequence[str]) -> Path:
    """Run a recipe with the code in `tree` and this interpreter, and return the run folder."""
    run_dir = tree.with_name(f"{tree.name}-{Path(recipe).stem}")
    command = [sys.executable, "-m", "launch.cli", "run", recipe, f"run_dir={run_dir}", *overrides]
    if code := subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}).returncode:
        raise UnusableError(f"{recipe} failed at the {tree.name} revision with exit code {code} (see above)")
    return run_dir


def _print(name: str, stages: dict[str, StageResult]) -> None:
    print(f"{name}\n  {'stage':<16}{'files':>7}{'same bytes':>12}{'new names':>12}{'different':>12}")
    for stage, it in stages.items():
        print(f"  {stage:<16}{it.compared:>7}{it.same_bytes:>12}{it.new_names_only:>12}{len(it.different):>12}")
    for stage, difference in ((stage, found) for stage, it in stages.items() for found in it.different):
        print(f"  {stage}/{difference}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.same_results", description="Are the results the same?")
    for side in ("old", "new"):
        parser.add_argument(side, help="a revision, or a run folder with --runs")
    parser.add_argument("--runs", action="store_true", help="compare two existing run folders")
    parser.add_argument("--recipe", nargs="+", default=["configs/smoke.yaml"], help="recipes to run at both revisions")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="KEY=VALUE", help="of both revisions")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the runs here, and reuse what is here already")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
