"""The queue of commits: one at a time for each repository, in order of arrival; repositories run in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

MAX_PARALLEL: Final = 32
"""The maximum number of repositories that are committed to at the same time."""

T = TypeVar("T")


class CommitQueue:
    """Runs commits in threads. To be used from one event loop only."""

    def __init__(self, max_parallel: int = MAX_PARALLEL) -> None:
        self._pool = ThreadPoolExecutor(max_parallel, "gw-commit")
        self._turns: dict[str, asyncio.Lock] = {}

    async def run(self, fqrn: str, commit: Callable[[], T]) -> T:
        """Wait for the repository's turn, and call *commit* in a thread."""
        # asyncio locks wake whoever waits longest
        async with self._turn(fqrn):
            return await asyncio.get_running_loop().run_in_executor(self._pool, commit)

    def busy(self, fqrn: str) -> bool:
        """Whether a commit to the repository is running or waiting."""
        return self._turn(fqrn).locked()

    async def idle(self, fqrn: str) -> None:
        """Wait until every commit to the repository that is running or waiting now has ended."""
        async with self._turn(fqrn):
            pass

    def close(self) -> None:
        """Wait for commits that are running, and end the threads."""
        self._pool.shutdown()

    def _turn(self, fqrn: str) -> asyncio.Lock:
        return self._turns.setdefault(fqrn, asyncio.Lock())
