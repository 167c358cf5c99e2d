"""Old names of recipe fields; each is refused with one line that gives the new name.

Contract: `refuse_old_names` raises one `UserError` with a line per old field of a recipe tree, before anything
else is validated. Old names are never translated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twofold.errors import Problem, UserError

RENAMED: dict[str, str] = {
    # --- data -----------------------------------------------------------------------------------
    "sources.*.licence": "license",
    "data.compliance.licences": "licenses",
    "data.near_duplicates.bands": "num_buckets",
    "data.near_duplicates.rows": "hashes_per_bucket",
    "data.rules.*.letter_word_share": "alpha_word_ratio",
    "data.rules.*.letter_token_share": "alpha_token_ratio",
    "data.rules.*.hash_per_word": "hash_to_word_ratio",
    "data.rules.*.ellipsis_per_word": "ellipsis_to_word_ratio",
    "data.rules.*.bullet_line_share": "bullet_line_frac",
    "data.rules.*.ellipsis_line_share": "ellipsis_line_frac",
    "data.rules.*.punctuated_line_share": "punctuated_line_frac",
    "data.rules.*.short_line_share": "short_line_frac",
    "data.rules.*.notice_line_share": "notice_line_frac",
    "data.rules.*.line_breaks_per_word": "new_line_ratio",
    "data.rules.*.duplicate_line_share": "dup_line_frac",
    "data.rules.*.duplicate_line_char_share": "dup_line_char_frac",
    "data.rules.*.duplicate_paragraph_share": "dup_para_frac",
    "data.rules.*.duplicate_paragraph_char_share": "dup_para_char_frac",
    "data.rules.*.top_2gram_char_share": "top_2gram_char_frac",
    "data.rules.*.top_3gram_char_share": "top_3gram_char_frac",
    "data.rules.*.top_4gram_char_share": "top_4gram_char_frac",
    "data.rules.*.duplicate_5gram_char_share": "dup_5gram_char_frac",
    "data.rules.*.duplicate_6gram_char_share": "dup_6gram_char_frac",
    "data.rules.*.duplicate_7gram_char_share": "dup_7gram_char_frac",
    "data.rules.*.duplicate_8gram_char_share": "dup_8gram_char_frac",
    "data.rules.*.duplicate_9gram_char_share": "dup_9gram_char_frac",
    "data.rules.*.duplicate_10gram_char_share": "dup_10gram_char_frac",
    "data.rules.*.hangul_share": "hangul_frac",
    "data.rules.*.latin_share": "latin_frac",
    "data.rules.*.han_share": "han_frac",
    "data.rules.*.digit_share": "digit_frac",
    "data.rules.*.punctuation_share": "punctuation_frac",
    "data.rules.*.uppercase_share": "uppercase_frac",
    "data.rules.*.lone_jamo_share": "lone_jamo_frac",
    "data.rules.*.jamo_run_share": "jamo_run_frac",
    "data.rules.*.emoji_share": "emoji_frac",
    "data.rules.*.symbol_share": "symbol_frac",
    "data.rules.*.broken_character_share": "broken_character_frac",
    "data.rules.*.url_char_share": "url_char_frac",
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
"""Old path of a field, with `*` for any name or index -> its new name."""

_PARTS = [tuple(key.split(".")) for key in RENAMED]
_OLD = {(*parts[:-1], new): parts[-1] for parts, new in zip(_PARTS, RENAMED.values(), strict=True)}
"""Path of a field with old section names and its new name -> its old name."""


def refuse_old_names(tree: dict[str, Any]) -> None:
    """Raise `UserError` if a recipe tree has old fields."""
    problems = list(_problems(tree, (), (), ()))
    if problems:
        raise UserError(problems)


def _problems(node: Any, written: tuple[str, ...], old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[Problem]:
    """Problems below `node`, whose path is `written` in the recipe, `old` in the table and `new` in the hint.

    A renamed section is reported through its old fields, or by itself if it has none.
    """
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
