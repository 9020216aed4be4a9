"""A queue in which sessions take turns: whoever has much to ask does not keep the others waiting."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

_T = TypeVar("_T")


class FairQueue(Generic[_T]):
    """First in, first out within a session; among sessions, one each in turn. An empty session is nobody's: what is
    put in under it takes turns by itself."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[object, deque[_T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, session: str, item: _T) -> None:
        lane: object = session or _Nobody()
        if lane in self._lanes:
            self._lanes[lane].append(item)
        else:
            self._lanes[lane] = deque([item])
        self._size += 1

    def pop(self) -> _T:
        """The next item. Raises KeyError when there is none."""
        lane, items = self._lanes.popitem(last=False)
        item = items.popleft()
        if items:
            self._lanes[lane] = items
        self._size -= 1
        return item

    def remove(self, item: _T) -> None:
        """Take ``item`` out, wherever it is; changes nothing when it is not there."""
        for lane, items in self._lanes.items():
            if item in items:
                items.remove(item)
                self._size -= 1
                if not items:
                    del self._lanes[lane]
                return


class _Nobody:
    """A lane of its own."""
