# A calculator: characters to tokens, tokens to a tree, the tree to a number.
"""Arithmetic with + - * / ^, unary minus and parentheses, by precedence climbing.

>>> evaluate("2 + 3 * (4 - 1) ^ 2")
29.0
"""

import operator
import re

TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?)|(.))")
OPERATORS = {
    # symbol: (precedence, associates to the right, function)
    "+": (1, False, operator.add),
    "-": (1, False, operator.sub),
    "*": (2, False, operator.mul),
    "/": (2, False, operator.truediv),
    "^": (4, True, operator.pow),
}
UNARY_PRECEDENCE = 3


class Parser:
    """Reads one expression; each method consumes what it has understood."""

    def __init__(self, text):
        self._tokens = [number or symbol for number, symbol in TOKEN.findall(text.rstrip())]
        self._position = 0

    def parse(self):
        tree = self._expression(0)
        if self._peek() is not None:
            raise SyntaxError(f"unexpected {self._peek()!r}")
        return tree

    def _expression(self, lowest):
        left = self._operand()
        while self._peek() in OPERATORS:
            symbol = self._peek()
            precedence, to_the_right, _ = OPERATORS[symbol]
            if precedence < lowest:
                break
            self._next()
            right = self._expression(precedence if to_the_right else precedence + 1)
            left = (symbol, left, right)
        return left

    def _operand(self):
        token = self._next()
        if token == "-":
            return ("negate", self._expression(UNARY_PRECEDENCE))
        if token == "(":
            inner = self._expression(0)
            if self._next() != ")":
                raise SyntaxError("missing )")
            return inner
        if token is None or not token[0].isdigit():
            raise SyntaxError(f"expected a number, found {token!r}")
        return float(token)

    def _peek(self):
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def _next(self):
        token = self._peek()
        self._position += 1
        return token


def evaluate(text):
    """The value of an expression; raises SyntaxError or ZeroDivisionError."""
    return value_of(Parser(text).parse())


def value_of(tree):
    if isinstance(tree, float):
        return tree
    if tree[0] == "negate":
        return -value_of(tree[1])
    symbol, left, right = tree
    return OPERATORS[symbol][2](value_of(left), value_of(right))


if __name__ == "__main__":
    assert evaluate("2 + 3 * (4 - 1) ^ 2") == 29
    assert evaluate("-2 ^ 2") == -4
    assert evaluate("2 ^ 3 ^ 2") == 512
    assert evaluate("8 / 4 / 2") == 1
