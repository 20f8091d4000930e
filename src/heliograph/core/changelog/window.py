"""A column of integers that grows at its end and is dropped from its beginning.

Compact (8 bytes each), untouched by the garbage collector, binary search for ascending columns.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator


class Window:
    """A growing array of numbers whose first elements are dropped; numbered from 0 for ever."""

    __slots__ = ("_array", "_dropped", "_head")

    def __init__(self) -> None:
        """Start empty; the first element gets number 0."""
        self._array = array("Q")
        self._head = 0
        self._dropped = 0

    def __len__(self) -> int:
        """Return how many elements are left."""
        return len(self._array) - self._head

    def __getitem__(self, offset: int) -> int:
        """Return the element at an offset from the first one left, which is at 0."""
        return self._array[offset + self._head]

    @property
    def start(self) -> int:
        """Number of the first element that is left."""
        return self._dropped + self._head

    @property
    def end(self) -> int:
        """Number of the next element."""
        return self._dropped + len(self._array)

    def append(self, value: int) -> None:
        """Add an element at the end.

        Args:
            value: 0 to 2^64 - 1.
        """
        self._array.append(value)

    def drop_first(self) -> None:
        """Drop one element; half of the array is given back at once, so it costs O(1)."""
        self._head += 1
        if self._head * 2 > len(self._array):
            del self._array[: self._head]
            self._dropped += self._head
            self._head = 0

    def first_above(self, value: int) -> int:
        """Return the number of the first element above a value; the elements ascend."""
        return self._dropped + bisect_right(self._array, value, self._head)

    def iterate_from(self, value: int) -> Iterator[int]:
        """Yield the elements from the first one that is not below a value; they ascend."""
        first = bisect_right(self._array, value - 1, self._head)
        return (self._array[place] for place in range(first, len(self._array)))
