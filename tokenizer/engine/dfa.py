"""A pattern that cuts text into words -> a finite automaton over classes of characters.

Contract: `automaton(pattern)` cuts every text exactly as the pattern does in `tokenizer.json`: at each place the first
alternative that matches, with greedy quantifiers. A pattern may hold characters, classes, `\\p{..}`, groups,
alternatives, `?`, `*`, `+`, `{m,n}` and look-ahead at one character. Anything else is a `UserError`, and so is a
pattern that leaves text uncut. The members of `\\p{L}` or `\\s` are taken from `tokenizers`, so its Unicode version
counts and no other. Cost: 0.4 s per process and pattern.

An expression without captures is a list of threads in order of preference, and the automaton's states are such lists
(Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009). The end of a word is noted one character late,
when a look-ahead at one character has been decided.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from string import hexdigits

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, normalizers

from twofold.errors import UserError, user_error

START = 1
CODE_POINTS = 0x110000
_DEAD = 0
_CHARACTER, _SPLIT, _AHEAD, _MATCH = range(4)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_COUNTS = {"?": (0, 1), "*": (0, None), "+": (1, None)}
Members = npt.NDArray[np.bool_]
"""Which code points belong to a set: bool [CODE_POINTS]."""
Program = list[tuple[int, int, int]]
"""(operation, a, b): a CHARACTER of set a; SPLIT to a, or else to b (relative); AHEAD, set a, negated b; MATCH."""


@dataclass(frozen=True)
class Automaton:
    """Driven by a table: from `START`, look up `steps[state, class]` at each character."""

    classes: npt.NDArray[np.uint8]
    """Class of each code point, uint8 [CODE_POINTS]."""
    steps: npt.NDArray[np.int32]
    """int32 [states, classes + 1]: 2 * next state, and 1 more where a word may end before this character.

    State 0 ends the search. The last column stands for the end of the text.
    """


@functools.lru_cache(maxsize=8)
def automaton(pattern: str) -> Automaton:
    """The automaton of `pattern`."""
    parser = _Parser(pattern)
    program = [*parser.parse(), (_MATCH, 0, 0)]
    kinds, classes = _classes(parser.sets)
    # The end of the text is one more class, in no set.
    held = [[bool(kind >> number & 1) for number in range(len(parser.sets))] for kind in [*kinds, 0]]
    states: dict[tuple[int, ...], int] = {(): _DEAD, (0,): START}
    rows = [[_DEAD] * len(held)]
    pending: list[tuple[int, ...]] = [(0,)]
    for threads in pending:
        row = []
        for of_class in held:
            after, ends = _step(program, threads, of_class)
            if after not in states:
                states[after] = len(states)
                pending.append(after)
            row.append(2 * states[after] + ends)
        rows.append(row)
    steps = np.array(rows, np.int32)
    if (steps[START] & 1).any():
        raise _refused(pattern, "matches the empty string")
    if not _cuts_everything(steps):
        raise _refused(pattern, "leaves some text uncut")
    return Automaton(classes, steps)


def _classes(sets: list[Members]) -> tuple[list[int], npt.NDArray[np.uint8]]:
    """Code points that are in the same sets form a class: (the sets of each class as bits, class by code point)."""
    assert len(sets) <= 64, "one bit a set"
    bits = np.zeros(CODE_POINTS, np.uint64)
    for number, members in enumerate(sets):
        bits |= members.astype(np.uint64) << np.uint64(number)
    kinds, classes = np.unique(bits, return_inverse=True)
    assert len(kinds) < 256, "one byte a class"
    return [int(kind) for kind in kinds], classes.astype(np.uint8)


def _step(program: Program, threads: tuple[int, ...], held: list[bool]) -> tuple[tuple[int, ...], bool]:
    """The threads after a character that is in the sets `held`, and whether a word may end before it."""
    after: dict[int, None] = {}
    seen = set()
    stack = list(reversed(threads))
    while stack:
        at = stack.pop()
        if at in seen:
            continue
        seen.add(at)
        operation, a, b = program[at]
        if operation == _MATCH:
            return tuple(after), True  # what comes later is less preferred
        if operation == _SPLIT:
            stack += [at + b, at + a]
        elif operation == _AHEAD and held[a] != bool(b):
            stack.append(at + 1)
        elif operation == _CHARACTER and held[a]:
            after[at + 1] = None
    return tuple(after), False


def _cuts_everything(steps: npt.NDArray[np.int32]) -> bool:
    """Whether every way from START passes the end of a word before the search ends."""
    pending, seen = [START], {START}
    for state in pending:
        row = steps[state].tolist()
        # At the very end of a text no word has to begin.
        for step in row[:-1] if state == START else row:
            after = step >> 1
            if step & 1 or after in seen:
                continue
            if after == _DEAD:
                return False
            seen.add(after)
            pending.append(after)
    return True


class _Parser:
    """Recursive descent over a pattern; collects the sets of characters that it names."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._at = pattern, 0
        self.sets: list[Members] = []
        self._numbers: dict[bytes, int] = {}

    def parse(self) -> Program:
        program = self._alternatives()
        if self._at < len(self._pattern):
            raise self._unknown()
        return program

    def _alternatives(self) -> Program:
        program = self._sequence()
        if self._taken("|"):
            other = self._alternatives()
            # Prefer the first; having matched it, jump over the other.
            program = [(_SPLIT, 1, len(program) + 2), *program, (_SPLIT, len(other) + 1, len(other) + 1), *other]
        return program

    def _sequence(self) -> Program:
        program: Program = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            program += self._repeated(self._atom())
        return program

    def _repeated(self, body: Program) -> Program:
        least: int = 1
        most: int | None = 1
        sign = self._next()
        if sign in _COUNTS:
            self._at += 1
            least, most = _COUNTS[sign]
        elif sign == "{":
            end = self._pattern.find("}", self._at)
            bounds = self._pattern[self._at + 1 : end].split(",")
            if end < 0 or len(bounds) > 2 or not bounds[0].isdecimal() or not (bounds[-1] or "0").isdecimal():
                raise self._unknown()
            self._at = end + 1
            least, most = int(bounds[0]), int(bounds[-1]) if bounds[-1] else None
        if self._next() in ("?", "*", "+", "{") and sign in (*_COUNTS, "{"):
            raise self._unknown()  # lazy and possessive quantifiers
        if most is None:
            return [*body * least, (_SPLIT, 1, len(body) + 2), *body, (_SPLIT, -len(body) - 1, -len(body) - 1)]
        if most < least:
            raise self._unknown()
        optional: Program = []
        for _ in range(most - least):
            optional = [(_SPLIT, 1, len(body) + len(optional) + 1), *body, *optional]
        return [*body * least, *optional]

    def _atom(self) -> Program:
        for opening, negated in (("(?=", 0), ("(?!", 1)):
            if self._taken(opening):
                members = self._set()
                self._expect(")")
                return [(_AHEAD, self._number(members), negated)]
        if self._taken("(?:") or (not self._pattern.startswith("(?", self._at) and self._taken("(")):
            program = self._alternatives()
            self._expect(")")
            return program
        return [(_CHARACTER, self._number(self._set()), 0)]

    def _set(self) -> Members:
        """One character or class."""
        if self._taken("["):
            negated = self._taken("^")
            members = np.zeros(CODE_POINTS, np.bool_)
            while not self._taken("]"):
                members |= self._range()
            return ~members if negated else members
        if self._next() in tuple("^$.*+?{}()|"):
            raise self._unknown()
        return self._single()[0]

    def _range(self) -> Members:
        if self._next() in ("[", "&"):  # nested classes and intersections
            raise self._unknown()
        members, first = self._single()
        if self._next() != "-" or self._pattern.startswith("-]", self._at):
            return members
        self._at += 1
        last = self._single()[1]
        if first is None or last is None or last < first:
            raise self._unknown()
        members = np.zeros(CODE_POINTS, np.bool_)
        members[first : last + 1] = True
        return members

    def _single(self) -> tuple[Members, int | None]:
        """(what is named here, its code point where it is one character)."""
        sign = self._next()
        if not sign:
            raise self._unknown()
        self._at += 1
        if sign != "\\":
            return _one(ord(sign)), ord(sign)
        letter = self._next()
        self._at += 1
        if letter in ("p", "P"):
            end = self._pattern.find("}", self._at)
            if end < 0 or not self._pattern.startswith("{", self._at):
                raise self._unknown()
            name, self._at = self._pattern[self._at + 1 : end], end + 1
            members = _members(rf"\p{{{name}}}")
            return (members if letter == "p" else ~members), None
        if letter in ("s", "S", "d", "D", "w", "W"):
            members = _members(f"\\{letter.lower()}")
            return (members if letter.islower() else ~members), None
        code_point = self._code_point(letter)
        return _one(code_point), code_point

    def _code_point(self, letter: str) -> int:
        """The character of an escape whose letter has been read."""
        if letter in _HEX_DIGITS:
            digits = self._pattern[self._at : self._at + _HEX_DIGITS[letter]]
            self._at += len(digits)
            if len(digits) == _HEX_DIGITS[letter] and set(digits) <= set(hexdigits) and int(digits, 16) < CODE_POINTS:
                return int(digits, 16)
        elif letter in _ESCAPES:
            return ord(_ESCAPES[letter])
        elif letter and not letter.isalnum():
            return ord(letter)
        raise self._unknown()

    def _number(self, members: Members) -> int:
        key = members.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self.sets)
            self.sets.append(members)
        return self._numbers[key]

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _taken(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found

    def _expect(self, text: str) -> None:
        if not self._taken(text):
            raise self._unknown()

    def _unknown(self) -> UserError:
        return _refused(self._pattern, f"is not understood at character {self._at}")


def _one(code_point: int) -> Members:
    members = np.zeros(CODE_POINTS, np.bool_)
    members[code_point] = True
    return members


@functools.lru_cache(maxsize=32)
def _members(expression: str) -> Members:
    """What the engine of record takes for `expression`, which is a class by name."""
    try:
        others = normalizers.Replace(Regex(f"[^{expression}]+"), "")
    except Exception as error:  # the binding raises bare Exception
        raise _refused(expression, f"is not a class of characters ({error})") from None
    # Surrogates are no characters, and no string of the engine's holds one.
    characters = np.r_[0:0xD800, 0xE000:CODE_POINTS].astype("<u4").tobytes().decode("utf-32-le")
    kept = others.normalize_str(characters)
    members = np.zeros(CODE_POINTS, np.bool_)
    members[np.frombuffer(kept.encode("utf-32-le"), "<u4")] = True
    return members


def _refused(pattern: str, problem: str) -> UserError:
    return user_error("pattern", pattern, problem, "use one of tokenizer/patterns.py")
