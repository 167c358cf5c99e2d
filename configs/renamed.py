"""Old names of recipe fields: each is refused with one line that says the new one.

Contract: `refuse_old_names` raises one `UserError` with a line for every old field of a recipe tree, before
anything else in it is judged. Nothing is translated: a recipe means what its file says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from configs.errors import Problem, UserError

RENAMED: dict[str, str] = {
    # --- data: entries of the data pipeline stand here ------------------------------------------
    # --- training -------------------------------------------------------------------------------
    "phases.*.batch": "global_batch_size",
    "phases.*.batch_ramp": "rampup_batch_size",
    "phases.*.batch_ramp.*.batch": "global_batch_size",
    "phases.*.learning_rate": "lr_scheduler",
    "phases.*.learning_rate.peak": "lr",
    "phases.*.learning_rate.final": "min_lr",
    "phases.*.learning_rate.decay_share": "decay_ratio",
    "phases.*.learning_rate.decay_shape": "decay_type",
    "phases.*.mask_documents": "intra_document_masking",
    "phases.*.mixture_block": "mixture_block_size",
    "optimizer.gradient_clip": "max_grad_norm",
    "engine.micro_batch_sequences": "micro_batch_size",
    "engine.kernels": "backend",
    "stability.window": "rolling_interval_length",
    "stability.sigmas": "sigma_factor",
}
"""Field by its old names, `*` for any name or index -> its new one."""

_PARTS = [tuple(key.split(".")) for key in RENAMED]
_OLD = {(*parts[:-1], new): parts[-1] for parts, new in zip(_PARTS, RENAMED.values(), strict=True)}
"""Field by the old names of the sections around it and its own new one -> its own old one."""


def refuse_old_names(tree: dict[str, Any]) -> None:
    """Raise `UserError` where a recipe tree has old fields."""
    problems = list(_problems(tree, (), (), ()))
    if problems:
        raise UserError(problems)


def _problems(node: Any, written: tuple[str, ...], old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[Problem]:
    """Of what is below `node`: its path as written, by the table's names, and as the hint says it, which is from
    the outermost old name on. An old section is named by the old fields in it, or by itself where it has none."""
    items = enumerate(node) if isinstance(node, list) else node.items() if isinstance(node, dict) else ()
    for name, value in ((str(key), value) for key, value in items):
        path = _path(old, name)
        renamed = RENAMED.get(".".join(path)) if path[-1] == name else None
        hint = (*new, renamed or name) if renamed or new else ()
        within = list(_problems(value, (*written, name), path, hint))
        if renamed and not within:
            yield Problem(".".join((*written, name)), None, "renamed", f"use {'.'.join(hint)}")
        yield from within


def _path(section: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The table's path to a field of a section, whether its old or its new name was written."""
    for last in (name, "*"):
        path = (*section, last)
        if any(key[: len(path)] == path for key in _PARTS):
            return path
    return (*section, _OLD.get((*section, name), name))
