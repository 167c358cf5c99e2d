"""Errors that a user caused and can fix.

Contract: anything a user can fix (recipe, command line, input files, a full disk) is raised as `UserError`;
`launch.cli` prints one line per problem and exits with code 2, never with a traceback. Our own bugs are
assertions or other exceptions, and do show a traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_LONGEST_VALUE = 80


@dataclass(frozen=True)
class Problem:
    """One thing to fix: `field` is a dotted recipe path, a file or a command-line word."""

    field: str
    value: Any
    problem: str
    hint: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {_short(self.value)}"
        end = "" if self.hint.endswith("?") else "."
        return f"{self.field}{shown}: {self.problem}. Hint: {self.hint}{end}"


class UserError(ValueError):
    """One or more problems that the user can fix; `str()` gives one line each."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        assert self.problems, "a UserError needs a problem"
        super().__init__("\n".join(str(p) for p in self.problems))

    def as_json(self) -> list[dict[str, Any]]:
        """The problems as JSON values, for a file that another process reads with `from_json`."""
        plain = (str, int, float, bool, type(None))
        return [{**asdict(p), "value": p.value if isinstance(p.value, plain) else str(p.value)} for p in self.problems]

    @classmethod
    def from_json(cls, problems: Sequence[dict[str, Any]]) -> UserError:
        return cls([Problem(**problem) for problem in problems])

    def __reduce__(self) -> tuple[type[UserError], tuple[tuple[Problem, ...]]]:
        # Exceptions cross processes by pickle; the default would pass the text as `problems`.
        return (type(self), (self.problems,))


def user_error(field: str, value: Any, problem: str, hint: str) -> UserError:
    """Shorthand for the common case of one problem."""
    return UserError(Problem(field, value, problem, hint))


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Up to three of `known` that `word` may stand for: spelled alike, or else with a part in common (`min_words`)."""
    names = list(known)
    alike = difflib.get_close_matches(word.lower(), [name for name in names if name[0] == word[0].lower()], cutoff=0.75)
    parts = {part for part in re.split(r"[_-]", word.lower()) if len(part) > 2}
    return alike or [name for name in names if parts & set(re.split(r"[_-]", name))][:3]


def _short(value: Any) -> str:
    """A long value without its middle: a path's end names the file."""
    text = repr(value).replace("\n", "\\n")
    half = _LONGEST_VALUE // 2
    return text if len(text) <= _LONGEST_VALUE else f"{text[:half]}…{text[-half:]}"
