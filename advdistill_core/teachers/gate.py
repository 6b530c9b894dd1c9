"""How many requests may be under way at once, learned from the endpoint's answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Additive increase, multiplicative decrease, as congestion control does.

    Args:
        most: the largest number of requests at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.under_way = 0
        self._resume_at = 0.0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a free place, and for the end of a pause."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.under_way < max(1, int(self.limit)))
            self.under_way += 1
        try:
            await asyncio.sleep(max(0.0, self._resume_at - asyncio.get_running_loop().time()))
            yield
        finally:
            async with self._changed:
                self.under_way -= 1
                self._changed.notify_all()

    def succeeded(self) -> None:
        """One more at once for every full round of successes."""
        self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def overloaded(self, pause_s: float) -> None:
        """Half as many at once, and none before the pause is over."""
        self.limit = max(1.0, self.limit / 2)
        self._resume_at = max(self._resume_at, asyncio.get_running_loop().time() + pause_s)
