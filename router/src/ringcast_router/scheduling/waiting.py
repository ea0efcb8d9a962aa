"""Those who wait for one model, by priority and age."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from ringcast_router.scheduling.interface import Request

_SEQ = attrgetter("seq")

Rank = tuple[int, int]  # negated priority, then seq: the smaller goes first


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits, or (`request` is None) a load that no request asked for.

    `seq` counts those who came, so the smaller is the older; `priority` is that of the request and its model together.
    """

    seq: int
    arrival: float
    priority: int
    request: Request | None

    @property
    def rank(self) -> Rank:
        """The place in the order of priority, then age."""
        return -self.priority, self.seq


class WaitingList:
    """The waiters of one model: one list by age for each priority. Finding takes the logarithm of the length."""

    __slots__ = ("_lists", "_size")

    def __init__(self) -> None:
        self._lists: dict[int, list[Waiter]] = {}  # the largest priority first; no list is empty
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Waiter]:
        """Yield all by rank."""
        for waiters in self._lists.values():
            yield from waiters

    def add(self, waiter: Waiter) -> None:
        """Put a waiter at its place."""
        waiters = self._lists.get(waiter.priority)
        if waiters is None:
            waiters = self._lists[waiter.priority] = []
            if len(self._lists) > 1:
                self._lists = dict(sorted(self._lists.items(), reverse=True))
        if waiters and waiters[-1].seq > waiter.seq:
            waiters.insert(bisect_left(waiters, waiter.seq, key=_SEQ), waiter)
        else:
            waiters.append(waiter)
        self._size += 1

    def remove(self, waiter: Waiter) -> None:
        """Take a waiter out, which must be there."""
        waiters = self._lists[waiter.priority]
        del waiters[bisect_left(waiters, waiter.seq, key=_SEQ)]
        if not waiters:
            del self._lists[waiter.priority]
        self._size -= 1

    def clear(self) -> list[Waiter]:
        """Take all out, and return them by rank."""
        waiters = list(self)
        self._lists.clear()
        self._size = 0
        return waiters

    def first(self) -> Waiter | None:
        """Return the oldest of the largest priority."""
        return next((waiters[0] for waiters in self._lists.values()), None)

    def oldest(self) -> Waiter | None:
        """Return the oldest of all."""
        return min((waiters[0] for waiters in self._lists.values()), key=_SEQ, default=None)

    def after(self, rank: Rank) -> Waiter | None:
        """Return the first that comes after `rank`."""
        negated, seq = rank
        for priority, waiters in self._lists.items():
            if priority < -negated:
                return waiters[0]
            if priority == -negated:
                at = bisect_left(waiters, seq + 1, key=_SEQ)
                if at < len(waiters):
                    return waiters[at]
        return None

    def ahead(self, waiter: Waiter, due: float = float("-inf")) -> int:
        """Return how many go before a waiter, which need not be in this list.

        Args:
            waiter: The waiter.
            due: Those who came at this time or earlier go first, by age alone.
        """
        if waiter.arrival <= due:
            return sum(bisect_left(waiters, waiter.seq, key=_SEQ) for waiters in self._lists.values())
        count = 0
        for priority, waiters in self._lists.items():
            if priority > waiter.priority:
                count += len(waiters)
            elif priority == waiter.priority:
                count += bisect_left(waiters, waiter.seq, key=_SEQ)
            else:
                count += bisect_left(waiters, True, key=lambda one: one.arrival > due)
        return count
