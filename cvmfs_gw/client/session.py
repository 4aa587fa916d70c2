"""One lease from its grant to its end: renewed while it is held, uploaded to over several connections, committed once.

If a connection breaks, its pack is sent again, without the objects that have arrived according to the gateway.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Final

from cvmfs_gw.client.errors import ClientError, GatewayUnreachable
from cvmfs_gw.client.gateway import CommitReply, GatewayClient, NotSupported
from cvmfs_gw.client.spool import Spool, SpoolPack
from cvmfs_objstore.formats.objectpack import PackItem
from cvmfs_objstore.hashes import ContentHash

CONNECTIONS: Final = 4
"""The number of object packs that are sent at once."""
PACK_SIZE: Final = 32 << 20
"""Bytes in a pack, unless one object has more: what has to be sent again at most when a connection breaks."""
PACK_OBJECTS: Final = 8192
RENEW_S: Final = 20.0
"""How often a lease of unknown life is renewed, and how soon at the latest after that failed, in seconds."""
RENEW_SHARE: Final = 1 / 3
"""The fraction of its life after which a lease is renewed: leaves two more attempts before it expires."""

_SHORTEST_S: Final = 0.1
_SENDINGS: Final = 20
_AGAIN_S: Final = 1.0
_ASKED_FROM: Final = 2048


class Session:
    """A lease that was granted. Leaving its context releases the lease unless it was committed."""

    def __init__(self, gateway: GatewayClient, token: str) -> None:
        self._gateway, self._token = gateway, token
        self._ended, self._stopped = threading.Event(), threading.Event()
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
        left = None
        with contextlib.suppress(ClientError):
            left = self._gateway.seconds_left(self._token)
        pause = _until_renewal(left)
        while not self._ended.wait(pause):
            try:
                pause = _until_renewal(self._gateway.renew(self._token))
            except NotSupported:
                return
            except ClientError:
                pause = min(pause, RENEW_S)  # whoever uses the lease will hear of it

    def stop(self) -> None:
        """End uploads that are running in other threads."""
        self._stopped.set()

    def upload(self, items: Iterable[PackItem], spool: Spool, sent: Callable[[int, int], object]) -> tuple[int, int]:
        """Send those of *items* that the repository does not have yet; returns objects and bytes that were sent.

        *sent* is told objects and bytes of each pack, from any thread. Raises :exc:`ClientError`.
        """
        objects = size = 0
        with ThreadPoolExecutor(CONNECTIONS, "upload") as threads:
            packs = divided(items)
            running = {threads.submit(self._send, spool, pack) for pack in itertools.islice(packs, 2 * CONNECTIONS)}
            try:
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        pack = future.result()
                        if pack:
                            arrived = sum(item.size for item in pack)
                            objects, size = objects + len(pack), size + arrived
                            sent(len(pack), arrived)
                    running |= {threads.submit(self._send, spool, pack) for pack in itertools.islice(packs, len(done))}
            except BaseException:
                self.stop()
                raise
        return objects, size

    def _send(self, spool: Spool, items: Sequence[PackItem]) -> Sequence[PackItem]:
        """Send a pack less what is there already; returns what was sent."""
        lost: GatewayUnreachable | None = None
        size = sum(item.size for item in items)
        for _ in range(_SENDINGS):
            # Small objects are sent as quickly as they are asked for.
            if lost is not None or size >= _ASKED_FROM * len(items):
                items = self._gateway.missing(self._token, items)
            if not items or self._stopped.is_set():
                return ()
            try:
                self._gateway.upload(self._token, _Stoppable(spool, items, self._stopped))
                return items
            except GatewayUnreachable as error:
                if not error.passing:
                    raise
                lost = error
                self._stopped.wait(_AGAIN_S)
        assert lost is not None
        raise lost

    def commit(self, old_root: ContentHash, new_root: ContentHash, tag: str, description: str) -> CommitReply:
        """Publish what was uploaded; see :meth:`GatewayClient.commit`."""
        reply = self._gateway.commit(self._token, old_root, new_root, tag, description)
        self._committed = True
        return reply


def _until_renewal(left: float | None) -> float:
    """When to renew a lease that has that many seconds left."""
    return RENEW_S if left is None else max(left * RENEW_SHARE, _SHORTEST_S)


def divided(items: Iterable[PackItem]) -> Iterator[list[PackItem]]:
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
