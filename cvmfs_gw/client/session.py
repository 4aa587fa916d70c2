"""One lease from its grant to its end: renewed while it is held, filled by several connections, committed once.

A pack whose connection breaks is sent again, less what the gateway says has arrived.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Final

from cvmfs_gw.client.errors import ClientError, GatewayUnreachable
from cvmfs_gw.client.gateway import CommitReply, GatewayClient
from cvmfs_gw.client.spool import Spool, SpoolPack
from cvmfs_objstore.formats.objectpack import PackItem
from cvmfs_objstore.hashes import ContentHash, Suffix

CONNECTIONS: Final = 4
"""Object packs that are sent at once."""
PACK_SIZE: Final = 32 << 20
"""Bytes in a pack, unless one object has more: what has to be sent again at most when a connection breaks."""
PACK_OBJECTS: Final = 8192
RENEW_S: Final = 20.0
"""How often the lease is renewed, in seconds: well within any life that a lease is given."""


_SENDINGS: Final = 20
_AGAIN_S: Final = 1.0


class Session:
    """A lease that was granted. As a context manager it gives the lease back, unless it was committed."""

    def __init__(self, gateway: GatewayClient, token: str) -> None:
        self._gateway, self._token = gateway, token
        self._ended = threading.Event()
        self._committed = False
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Session:
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if not self._committed:
            with contextlib.suppress(ClientError):
                self._gateway.release(self._token)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                if not self._gateway.renew(self._token):
                    return
            except ClientError:
                continue  # whoever uses the lease will hear of it

    def upload(self, items: Sequence[PackItem], spool: Spool, sent: Callable[[int, int], object]) -> tuple[int, int]:
        """Send those of *items* that the repository does not have yet; returns objects and bytes that were sent.

        Catalogs go last, so that whatever they name is there before them. *sent* is told objects and bytes, from any
        thread. Raises :exc:`ClientError`.
        """
        catalogs = [item for item in items if item.name.suffix is Suffix.CATALOG]
        others = [item for item in items if item.name.suffix is not Suffix.CATALOG]
        total = [0, 0]
        lock = threading.Lock()

        def count(objects: int, size: int) -> None:
            with lock:
                total[0] += objects
                total[1] += size
            sent(objects, size)

        with ThreadPoolExecutor(CONNECTIONS, "upload") as threads:
            for some in (others, catalogs):
                self._upload(threads, spool, some, count)
        return total[0], total[1]

    def _upload(
        self, threads: ThreadPoolExecutor, spool: Spool, items: Sequence[PackItem], sent: Callable[[int, int], None]
    ) -> None:
        stop = threading.Event()
        packs = divided(items)
        running: set[Future[None]] = set()
        try:
            for pack in packs:
                running.add(threads.submit(self._send, spool, pack, sent, stop))
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            stop.set()
            for future in running:
                future.cancel()
            raise

    def _send(
        self, spool: Spool, items: Sequence[PackItem], sent: Callable[[int, int], None], stop: threading.Event
    ) -> None:
        lost: GatewayUnreachable | None = None
        for _ in range(_SENDINGS):
            items = self._gateway.missing(self._token, items)
            if not items or stop.is_set():
                return
            try:
                self._gateway.upload(self._token, _Stoppable(spool, items, stop))
            except GatewayUnreachable as error:
                if not error.passing:
                    raise
                lost = error
                stop.wait(_AGAIN_S)
                continue
            sent(len(items), sum(item.size for item in items))
            return
        assert lost is not None
        raise lost

    def commit(self, old_root: ContentHash, new_root: ContentHash, tag: str, description: str) -> CommitReply:
        """Publish what was uploaded; see :meth:`GatewayClient.commit`."""
        reply = self._gateway.commit(self._token, old_root, new_root, tag, description)
        self._committed = True
        return reply


def divided(items: Sequence[PackItem]) -> Iterator[list[PackItem]]:
    """*items*, in order, as the contents of packs."""
    some: list[PackItem] = []
    size = 0
    for item in items:
        if some and (len(some) == PACK_OBJECTS or size + item.size > PACK_SIZE):
            yield some
            some, size = [], 0
        some.append(item)
        size += item.size
    if some:
        yield some


class _Stoppable(SpoolPack):
    """A pack whose sending ends when somebody says so."""

    def __init__(self, spool: Spool, items: Sequence[PackItem], stop: threading.Event) -> None:
        super().__init__(spool, items)
        self._stop = stop

    def stream(self) -> Iterator[bytes]:
        for piece in super().stream():
            if self._stop.is_set():
                raise ConnectionAbortedError("the upload was given up")
            yield piece
