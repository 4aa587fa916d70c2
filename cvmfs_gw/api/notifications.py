"""``/notifications``: publish an activity message, subscribe to event streams.

A deployed client sends its subscription as the JSON body of a GET. Others may also name repositories in the URL:
``?repository=a&repository=b``, or ``?repository=*``.

A client whose ``User-Agent`` begins with ``cvmfs/`` is refused by a reset, after which it reconnects: any complete
reply would end its subscription for good.

Source: the routes of the reference's gateway; see :mod:`cvmfs_notify.sse` for the streams.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping

from aiohttp import web

from cvmfs_gw.api.context import json_body
from cvmfs_gw.api.messages import reply
from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.repository import MANIFEST_PATH
from cvmfs_gw.gateway.committer import Committed
from cvmfs_gw.gateway.errors import GatewayError
from cvmfs_gw.paths import SystemPaths
from cvmfs_notify import keepalive
from cvmfs_notify.authorization import check_publisher
from cvmfs_notify.errors import InvalidSubscription, NotifyError, OlderRevision
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.messages import parse_subscription, topics
from cvmfs_notify.sse import Dialect
from cvmfs_notify.trust import Anchors
from cvmfs_objstore.errors import ObjectNotFound, ObjectStoreError

log = logging.getLogger(__name__)

HUB: web.AppKey[NotificationHub] = web.AppKey("notifications", NotificationHub)

PUBLISH_KEYS: web.AppKey[Mapping[str, bytes]] = web.AppKey("publish_keys")

_MAX_CERTIFICATE = 1 << 20


class RepositoryAnchors:
    """Trust anchors of the repositories whose storage and public key are on this machine."""

    def __init__(self, engine: Engine, paths: SystemPaths) -> None:
        self._engine = engine
        self._paths = paths

    def anchors(self, fqrn: str) -> Anchors | None:
        """See :class:`cvmfs_notify.trust.TrustSource`."""
        if not os.path.exists(self._paths.server_conf(fqrn)):
            return None
        try:
            with open(self._paths.key_file(fqrn, "pub"), "rb") as file:
                public_keys = file.read(_MAX_CERTIFICATE)
            store = self._engine.repository(fqrn).objects
            whitelist = store.storage.read(".cvmfswhitelist")
        except (FileNotFoundError, ObjectNotFound, EngineError):
            return None
        return Anchors(public_keys, whitelist, lambda name: store.get_plain(name, max_size=_MAX_CERTIFICATE))


class Announcer:
    """Announces the published manifests of this gateway's repositories."""

    def __init__(self, hub: NotificationHub, engine: Engine) -> None:
        self._hub = hub
        self._engine = engine

    async def committed(self, committed: Committed) -> None:
        """For :attr:`Committer.on_committed`."""
        await self.announce(committed.fqrn)

    async def announce(self, fqrn: str) -> None:
        """Announce the manifest that is in the storage now; errors are logged.

        At the start, this announces what was published meanwhile: by ``cvmfs_server`` on this machine, or by a process
        that was killed between writing the manifest and its notification.
        """
        try:
            manifest = await asyncio.to_thread(self._read, fqrn)
            await self._hub.announce(fqrn, manifest)
        except ObjectNotFound:
            log.debug("%s: nothing is published yet", fqrn)
        except OlderRevision as error:
            log.debug("%s: %s", fqrn, error)  # of two commits in a row, the second was told of first
        except (EngineError, ObjectStoreError, OSError, NotifyError) as error:
            log.warning("%s: subscribers are not notified: %s", fqrn, error)

    async def catch_up(self, fqrns: Iterable[str]) -> None:
        """Announce all of them."""
        for fqrn in list(fqrns):
            await self.announce(fqrn)

    def _read(self, fqrn: str) -> bytes:
        return self._engine.repository(fqrn).storage.read(MANIFEST_PATH)


def install(
    app: web.Application, hub: NotificationHub, root: str, publish_keys: Mapping[str, bytes] | None = None
) -> None:
    """Add the routes below *root*, and cut the streams when the application is about to stop.

    With *publish_keys* (id -> secret), messages must be signed by one of them. This does not concern this gateway's own
    commits, so that ``notify -p`` of the tools is not needed.
    """
    app[HUB] = hub
    app[PUBLISH_KEYS] = publish_keys or {}
    app.add_routes(routes(root))
    app.on_shutdown.append(_cut)


def routes(root: str) -> list[web.RouteDef]:
    return [
        web.post(f"{root}/notifications/publish", publish),
        web.get(f"{root}/notifications/subscribe", subscribe, allow_head=False),
    ]


async def publish(request: web.Request) -> web.Response:
    try:
        body = await json_body(request)
        check_publisher(request.headers.get("Authorization"), body, request.app[PUBLISH_KEYS])
        await request.app[HUB].publish(body)
    except NotifyError as error:
        log.info("a message from %s is refused: %s", request.remote, error)
        return reply(dict(error.reply()), error.http_status)
    return reply({"status": "ok"})


async def subscribe(request: web.Request) -> web.StreamResponse:
    dialect = Dialect.of(request.headers.get("User-Agent"))
    transport = request.transport
    try:
        wanted = await _wanted(request)
        if dialect is Dialect.STRICT and (wanted is None or len(wanted) > 1):
            raise InvalidSubscription("one repository for each stream")
        if transport is None or transport.is_closing():
            return _Nothing()  # gone before it was answered
        _open(request, transport, wanted, dialect)
    except ConnectionError:
        raise
    except Exception as error:
        known = isinstance(error, (NotifyError, GatewayError))
        level = logging.INFO if known else logging.ERROR
        log.log(level, "a subscriber from %s is refused: %s", request.remote, error, exc_info=not known)
        if dialect is Dialect.STRICT:
            if transport is not None:
                keepalive.cut(transport)
            return _Nothing()
        if not isinstance(error, NotifyError):
            raise
        return reply(dict(error.reply()), error.http_status)
    return _Nothing()


def _open(request: web.Request, transport: asyncio.Transport, wanted: frozenset[str] | None, dialect: Dialect) -> None:
    """Make the connection a stream."""
    request.app[HUB].open_stream(
        transport,
        wanted,
        dialect,
        chunked=request.version >= (1, 1),
        last_event_id=request.headers.get("Last-Event-ID") or request.query.get("lastEventId"),
    )
    # For the HTTP server the connection is lost, so that it keeps nothing of it.
    request.protocol.transport = None
    request.protocol.connection_lost(None)


class _Nothing(web.StreamResponse):
    """The response on a connection that was handed over: never sent, only for the access log."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def _wanted(request: web.Request) -> frozenset[str] | None:
    """The repositories that the URL or the body names, None for all; raises."""
    named = request.query.getall("repository", [])
    if not named:
        named = [parse_subscription(await json_body(request))]
    return topics(named)


async def _cut(app: web.Application) -> None:
    app[HUB].cut()
