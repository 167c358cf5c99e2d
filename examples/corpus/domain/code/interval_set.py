# A set of whole numbers kept as sorted, disjoint, half-open intervals.
"""Interval sets: union, membership and gaps in logarithmic or linear time.

The set {1, 2, 3, 7, 8} is stored as [(1, 4), (7, 9)]. Two intervals that touch are joined, so that
every set has exactly one representation and equality of sets is equality of lists.
"""

from bisect import bisect_left, bisect_right


class IntervalSet:
    """A mutable set of whole numbers, compact when the numbers come in runs."""

    def __init__(self):
        self._starts = []
        self._ends = []

    def add(self, start, end):
        """Add every number n with start <= n < end; join what overlaps or touches."""
        if start >= end:
            raise ValueError(f"empty interval: {start}..{end}")
        # The first interval that could touch ends at or after `start`.
        left = bisect_left(self._ends, start)
        # The last one begins at or before `end`.
        right = bisect_right(self._starts, end)
        if left < right:
            start = min(start, self._starts[left])
            end = max(end, self._ends[right - 1])
        self._starts[left:right] = [start]
        self._ends[left:right] = [end]

    def __contains__(self, number):
        position = bisect_right(self._starts, number) - 1
        return position >= 0 and number < self._ends[position]

    def __len__(self):
        return sum(end - start for start, end in self)

    def __iter__(self):
        return iter(zip(self._starts, self._ends, strict=True))

    def gaps(self, start, end):
        """Yield the intervals within start..end that are not in the set."""
        position = start
        for low, high in self:
            if low >= end:
                break
            if low > position:
                yield position, low
            position = max(position, high)
        if position < end:
            yield position, end


if __name__ == "__main__":
    seats = IntervalSet()
    seats.add(10, 20)
    seats.add(30, 40)
    seats.add(20, 25)
    assert list(seats) == [(10, 25), (30, 40)]
    assert 24 in seats
    assert 25 not in seats
    assert list(seats.gaps(0, 50)) == [(0, 10), (25, 30), (40, 50)]
    assert len(seats) == 25
