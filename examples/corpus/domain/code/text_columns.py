# Lays out paragraphs in lines of even raggedness by dynamic programming.
"""Optimal line breaking: the sum of squared spaces left over is as small as it can be.

A greedy wrapper fills each line as far as it goes, which can leave one line nearly empty further down.
Here the cost of a paragraph is the sum over its lines, the last excepted, of the square of the unused
columns, and the cheapest breaks are found from the end to the beginning in O(n * w) time.
"""

INFINITE = float("inf")


def break_lines(words, width):
    """Return the lines of `words`, each at most `width` columns, with the least total cost."""
    too_long = [word for word in words if len(word) > width]
    if too_long:
        raise ValueError(f"{too_long[0]!r} is wider than {width} columns")
    count = len(words)
    cost = [INFINITE] * count + [0]
    following = [count] * count
    for first in range(count - 1, -1, -1):
        columns = -1
        for last in range(first, count):
            columns += len(words[last]) + 1
            if columns > width:
                break
            is_final = last == count - 1
            total = 0 if is_final else (width - columns) ** 2 + cost[last + 1]
            if total < cost[first]:
                cost[first], following[first] = total, last + 1
    lines, first = [], 0
    while first < count:
        lines.append(" ".join(words[first : following[first]]))
        first = following[first]
    return lines


def wrap(text, width=72):
    """Wrap each paragraph of `text`; paragraphs are separated by blank lines."""
    paragraphs = [paragraph.split() for paragraph in text.split("\n\n")]
    return "\n\n".join("\n".join(break_lines(words, width)) for words in paragraphs)


if __name__ == "__main__":
    sample = "aaa bb cc ddddd"
    assert break_lines(sample.split(), 6) == ["aaa", "bb cc", "ddddd"]
    assert wrap("one two\n\nthree", 7) == "one two\n\nthree"
