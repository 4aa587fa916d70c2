"""The gateway's REST API as a publisher uses it.

All requests except object packs are repeated when the connection breaks. If the reply to a lease request was lost, this
project's gateway grants the lease again; and it records the outcome of commits. With the reference's gateway, the path
stays leased until the lost lease expires; and a repeated commit is answered with "invalid lease", which leaves its
outcome unknown (:exc:`CommitInDoubt`).

Source: ``/api/v1`` of the reference gateway, protocol version 3 on; ``Lease-Wait``, ``request`` and ``/objects`` are
this project's.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Protocol
from urllib.parse import quote

import urllib3

from cvmfs_gw.client.errors import ClientError, CommitInDoubt, GatewayRefused, GatewayUnreachable, PathBusy
from cvmfs_gw.client.net import connections, why
from cvmfs_gw.gateway.authorization import Key, sign
from cvmfs_gw.gateway.gotime import parse_time
from cvmfs_objstore.formats.objectpack import PackItem, header_digest
from cvmfs_objstore.hashes import ContentHash

PROTOCOL: Final = 4
PATIENCE_S: Final = 60.0
"""How long requests to an unreachable gateway are retried, in seconds."""
FIRST_PATIENCE_S: Final = 3.0
"""The same if it was never reached: then the address is probably wrong."""
ASKED_AT_ONCE: Final = 8192
"""The number of objects in one query for missing objects."""
_READ_S: Final = 3600.0
_MAX_REPLY: Final = 16 << 20
_LEASE_WAIT_S: Final = 300.0
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 15.0
_UNAVAILABLE: Final = (502, 503, 504)

Body = bytes | Callable[[], Iterator[bytes]] | None


class Pack(Protocol):
    """An object pack that can be sent more than once."""

    @property
    def size(self) -> int:
        """Bytes of all objects."""

    def header(self) -> bytes: ...

    def stream(self) -> Iterator[bytes]:
        """Header and objects."""


@dataclass(frozen=True, slots=True)
class CommitReply:
    """The result of a commit, as far as the gateway reports it; *missing*: objects it refers to that do not exist."""

    final_revision: int
    tag_name: str = ""
    missing: tuple[str, ...] = ()


class GatewayClient:
    """One publisher's connections to a gateway. *url* ends with ``/api/v1``. Thread-safe.

    *patience_s* is how long requests to an unreachable gateway are retried; *sleep* waits for some seconds.
    """

    def __init__(
        self, url: str, key: Key, *, patience_s: float | None = None, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._patience_s, self._sleep = PATIENCE_S if patience_s is None else patience_s, sleep
        self._pool = connections(url, read_s=_READ_S)
        self._reached = False
        self._ahead_s = 0.0

    def close(self) -> None:
        """Close all connections; later requests open new ones."""
        self._pool.clear()

    @property
    def key_id(self) -> str:
        """The name of the key that requests are signed with."""
        return self._key.id

    def keys(self, fqrn: str) -> dict[str, str] | None:
        """The ids of the keys that open a repository, each with the path that it opens; None if nobody says so."""
        try:
            reply = self._expect(self._call("GET", f"/repos/{quote(fqrn)}", signed=b""), f"repository {fqrn}")
        except NotSupported:
            return None
        data = reply.get("data")
        keys = data.get("keys") if isinstance(data, dict) else None
        return {key: str(path) for key, path in keys.items()} if isinstance(keys, dict) else None

    def acquire(self, path: str, wait_s: float = 0.0, waiting: Callable[[PathBusy], object] = lambda busy: None) -> str:
        """Lease *path* (``<fqrn>/`` or ``<fqrn>/a/b``); returns the session token.

        Waits up to *wait_s* seconds for a busy path: in the gateway's queue if it has one, else by polling. *waiting*
        is called whenever the path was busy. Raises :exc:`PathBusy`.
        """
        request = {"path": path, "api_version": str(PROTOCOL), "hostname": socket.gethostname()}
        body = json.dumps({**request, "request": secrets.token_hex(16)}).encode()
        lost: list[GatewayUnreachable] = []
        until = time.monotonic() + wait_s
        for pause in _pauses():
            left = max(until - time.monotonic(), 0.0)
            headers = {"Lease-Wait": str(math.ceil(min(left, _LEASE_WAIT_S)))} if wait_s else {}
            reply = self._call("POST", "/leases", body, signed=body, headers=headers, lost=lost.append)
            if reply.get("status") != "path_busy":
                break
            busy = PathBusy(path, reply.get("time_remaining"), in_doubt=bool(lost))
            left = until - time.monotonic()
            if left <= 0:
                raise busy
            waiting(busy)
            self._sleep(min(pause, left))
        token = self._expect(reply, f"lease of {path}").get("session_token")
        if not isinstance(token, str):
            raise GatewayUnreachable("the gateway granted a lease without a token")
        return token

    def seconds_left(self, token: str) -> float | None:
        """The remaining life of the lease, in seconds; None if the gateway does not report it."""
        return self._left(self._call("GET", f"/leases/{token}", signed=token.encode()))

    def renew(self, token: str) -> float | None:
        """Let the lease live on as long as a new one; returns for how many seconds, None if the gateway does not say.

        Raises :exc:`NotSupported` where it cannot.
        """
        reply = self._call("PATCH", f"/leases/{token}", signed=token.encode())
        return self._left(self._expect(reply, "renewal of the lease"))

    def _left(self, reply: dict[str, object]) -> float | None:
        lease = reply.get("data")
        try:
            expires = parse_time(str(lease.get("expires"))) if isinstance(lease, dict) else None
        except ValueError:
            expires = None
        # By the gateway's clock, which is not ours.
        return None if expires is None else max(expires / 1000 - time.time() - self._ahead_s, 0.0)

    def release(self, token: str) -> None:
        """Release a lease."""
        self._expect(self._call("DELETE", f"/leases/{token}", signed=token.encode()), "release of the lease")

    def missing(self, token: str, items: Sequence[PackItem]) -> list[PackItem]:
        """Those of *items* that the repository does not have; all of them where the gateway does not say."""
        found: list[PackItem] = []
        for start in range(0, len(items), ASKED_AT_ONCE):
            asked = {str(item.name): item for item in items[start : start + ASKED_AT_ONCE]}
            body = json.dumps({"objects": {name: item.size for name, item in asked.items()}}).encode()
            try:
                reply = self._expect(self._call("POST", f"/objects/{token}", body, signed=body), "question for objects")
            except NotSupported:
                return list(items)
            names = reply.get("missing")
            if not isinstance(names, list) or not all(isinstance(name, str) and name in asked for name in names):
                raise GatewayUnreachable("the gateway's answer about objects is invalid")
            found += [asked[name] for name in names]
        return found

    def upload(self, token: str, pack: Pack) -> None:
        """Send one object pack, once.

        Raises :exc:`GatewayUnreachable` if the connection breaks: what has arrived by then stays, see :meth:`missing`.
        """
        header = pack.header()
        head = json.dumps(
            {
                "session_token": token,
                "payload_digest": header_digest(header).bare,
                "header_size": str(len(header)),
                "api_version": str(PROTOCOL),
            }
        ).encode()

        def body() -> Iterator[bytes]:
            yield head
            yield from pack.stream()

        headers = {"Message-Size": str(len(head)), "Content-Length": str(len(head) + len(header) + pack.size)}
        reply = self._call("POST", f"/payloads/{token}", body, signed=token.encode(), headers=headers, again=False)
        self._expect(reply, "upload")

    def commit(
        self, token: str, old_root: ContentHash, new_root: ContentHash, tag: str = "", description: str = ""
    ) -> CommitReply:
        """Commit what was uploaded. Raises :exc:`CommitInDoubt` if the outcome is unknown."""
        body = json.dumps(
            {
                "old_root_hash": str(old_root),
                "new_root_hash": str(new_root),
                "tag_name": tag,
                "tag_description": description,
                "tag_channel": 0,
            }
        ).encode()
        lost: list[GatewayUnreachable] = []
        try:
            raw = self._call("POST", f"/leases/{token}", body, signed=token.encode(), lost=lost.append)
            reply = self._expect(raw, "commit")
        except (GatewayUnreachable, GatewayRefused) as error:
            if lost:
                raise CommitInDoubt(f"nobody says whether the commit was done: {error}") from error
            raise
        revision, tag_name, missing = (reply.get(name) for name in ("final_revision", "tag_name", "missing_objects"))
        if not isinstance(revision, int):
            raise GatewayUnreachable("the gateway's answer to the commit is invalid", passing=False)
        return CommitReply(revision, str(tag_name or ""), tuple(map(str, missing)) if isinstance(missing, list) else ())

    # -- inside

    def _call(
        self,
        method: str,
        route: str,
        body: Body = None,
        *,
        signed: bytes,
        headers: dict[str, str] | None = None,
        again: bool = True,
        lost: Callable[[GatewayUnreachable], object] = lambda error: None,
    ) -> dict[str, object]:
        """The reply; asked *again* if there is none. *lost* is told of requests that may have been done."""
        patience = self._patience_s if self._reached else min(self._patience_s, FIRST_PATIENCE_S)
        until = math.inf
        for pause in _pauses():
            try:
                reply = self._ask(method, route, body, signed, headers or {})
                self._reached = True
                return reply
            except _NotConnected as error:
                until = min(until, time.monotonic() + patience)  # from when it was first not there
                if time.monotonic() + pause > until:
                    raise GatewayUnreachable(str(error)) from error
            except GatewayUnreachable as error:
                lost(error)
                until = min(until, time.monotonic() + patience)
                if not again or not error.passing or time.monotonic() + pause > until:
                    raise
            self._sleep(pause)
        raise AssertionError("pauses have no end")

    def _ask(self, method: str, route: str, body: Body, signed: bytes, headers: dict[str, str]) -> dict[str, object]:
        all_headers = {"Authorization": sign(self._key, signed), **headers}
        try:
            reply = self._pool.request(
                method,
                self._url + route,
                body=body() if callable(body) else body,
                headers=all_headers,
                preload_content=False,
                chunked=False,
                redirect=False,
            )
            try:
                raw = reply.read(_MAX_REPLY)
            finally:
                reply.release_conn()
        except urllib3.exceptions.HTTPError as error:
            # The URL would show the session token, so only the server is named.
            cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
            what = f"no answer from {self._url}: {why(error)}"
            if isinstance(cause, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
                raise _NotConnected(what) from error
            raise GatewayUnreachable(what) from error
        except OSError as error:
            raise GatewayUnreachable(f"no answer from {self._url}: {why(error)}") from error
        self._set_clock(reply.headers.get("Date"))
        if reply.status in _UNAVAILABLE:
            raise GatewayUnreachable(f"no answer from {self._url}: HTTP {reply.status}")
        try:
            content = json.loads(raw)
        except ValueError:
            content = None
        if reply.status in (404, 405, 501):
            said = str(content.get("reason") or "") if isinstance(content, dict) else ""
            raise NotSupported(f"{method} /{route.split('/')[1]}", said or f"HTTP {reply.status}")
        if not isinstance(content, dict):
            raise GatewayUnreachable(f"{self._url} did not answer as a gateway does", passing=False)
        return content

    def _set_clock(self, date: str | None) -> None:
        """Note what time it is at the gateway."""
        with contextlib.suppress(TypeError, ValueError):
            self._ahead_s = parsedate_to_datetime(date or "").timestamp() - time.time()

    @staticmethod
    def _expect(reply: dict[str, object], what: str) -> dict[str, object]:
        if reply.get("status") != "ok":
            reason = str(reply.get("reason") or reply.get("status"))
            raise GatewayRefused(what, reason, str(reply.get("detail") or ""))
        return reply


class NotSupported(GatewayRefused):
    """The gateway has no such route."""


class _NotConnected(ClientError):
    """The connection was refused, so nothing was done."""


def _pauses() -> Iterable[float]:
    """Growing pauses with jitter, so that waiting clients do not all retry at the same time."""
    pause = _FIRST_PAUSE_S
    while True:
        yield pause * random.uniform(0.5, 1.5)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
