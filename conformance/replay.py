"""A recorded session played to a gateway: what publishers said, signed again, with this gateway's tokens and heads.

A publisher that commits after somebody else names the head that it found, and that is another one on each gateway.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

from conformance.gateway import AGENT, Gateway
from conformance.objects import object_path
from conformance.outcomes import Failed, NotApplicable, equal, expect
from conformance.repository import Repository
from conformance.session import Exchange, Session, Stream
from conformance.stream import Notifications, Subscription
from conformance.trust import Manifest
from conformance.websocket import WebSocketSubscriber
from conformance.wire import Key, Reply

_OLD_ROOT: Final = re.compile(r'("old_root_hash"\s*:\s*")([0-9a-f]{40}(?:-rmd160|-shake128)?)C')
_DURATION: Final = re.compile(r"(\d+h)?(\d+m)?\d+(\.\d+)?(s|ms)")
_COMPARED: Final = ("status", "reason", "time_remaining", "final_revision", "session_token", "max_api_version")
"""Members that every gateway must give; others are there in some and not in others."""
_WAIT_S: Final = 10.0


class Player:
    """Plays one session; remembers the tokens that were granted in place of the recorded ones."""

    def __init__(
        self,
        gateway: Gateway,
        session: Session,
        key: Key,
        repository: Repository | None = None,
        *,
        notify: str = "",
        websocket: str = "",
    ) -> None:
        """*repository* has the present head; without it hashes and manifests are left as they were recorded.

        *notify* and *websocket* are where subscribers go, if that is not the gateway.
        """
        self._gateway, self._session, self._key, self._repository = gateway, session, key, repository
        self._notify, self._websocket = notify, websocket
        self._tokens: dict[str, str] = {}

    def play(self, ahead: int = 0) -> None:
        """Play all of it; replies must be as recorded, with revisions *ahead*. Raises :exc:`Failed`, ``OSError``."""
        with ExitStack() as stack:
            listeners: list[Told] = []
            for number, exchange in enumerate(self._session.exchanges, 1):
                for stream in self._session.streams:
                    if stream.opened == number - 1:
                        listeners.append(stack.enter_context(self._subscribe(stream)))
                reply = self.ask(exchange)
                try:
                    self._compare(exchange, reply, ahead)
                except Failed as failure:
                    where = f"request {number} ({exchange.method} {exchange.path})"
                    raise Failed(f"{where}: {failure}; the reply is {reply}") from failure
            for listener in listeners:
                listener.compare(ahead)

    def _subscribe(self, stream: Stream) -> Told:
        if stream.kind == "websocket":
            if not self._websocket:
                raise NotApplicable("needs --websocket: the session has a subscriber that speaks it")
            return Told(stream, self._websocket)
        return Told(stream, self._notify or self._gateway.url.text)

    def ask(self, exchange: Exchange) -> Reply:
        """Send one recorded request as it must be now."""
        route = self._now(exchange.path).partition("/api/v1")[2]
        text = self._now(exchange.text)
        text = self._with_manifest(text) if route.endswith("/publish") else self._with_head(text)
        return self.send(exchange, route, text.encode("utf-8", "surrogateescape"))

    def send(self, exchange: Exchange, route: str, text: bytes) -> Reply:
        """The same with *route* and *text* as they are to be."""
        signed = {"body": text, "head": text, "token": route.rpartition("/")[2].encode()}.get(exchange.signed)
        headers = {name: value for name, value in exchange.headers.items() if name != "Expect"}
        if exchange.pack is not None:
            headers["Message-Size"] = str(len(text))
        body = text + (exchange.pack or b"")
        reply = self._gateway.call(exchange.method, route, body, key=self._key, signed=signed, headers=headers)
        recorded = exchange.reply.get("session_token")
        granted = reply.json.get("session_token")
        if isinstance(recorded, str) and isinstance(granted, str):
            self._tokens[recorded] = granted
        return reply

    def _compare(self, exchange: Exchange, reply: Reply, ahead: int) -> None:
        equal(reply.status, exchange.status, "HTTP status")
        found = reply.json
        for name in _COMPARED:
            if name not in exchange.reply:
                continue
            recorded = exchange.reply[name]
            expect(name in found, f"{name} is missing: {reply}")
            if name == "final_revision":
                equal(found[name], recorded + ahead, name)
            elif name == "time_remaining":
                expect(_DURATION.fullmatch(str(found[name])), f"time_remaining is {found[name]!r}")
            elif name == "session_token":
                expect(isinstance(found[name], str), f"session_token is {found[name]!r}")
            else:
                equal(found[name], recorded, name)

    def _with_head(self, text: str) -> str:
        found = _OLD_ROOT.search(text)
        if found is None or self._repository is None:
            return text
        name = found[2]
        was_there = f"srv/cvmfs/{self._session.fqrn}/{object_path(name, 'C')}" in self._session.initial
        return text if was_there else text.replace(found[0], f"{found[1]}{self._repository.manifest().root}C")

    def _with_manifest(self, text: str) -> str:
        """A message to subscribers, with the manifest that is published here."""
        if self._repository is None:
            return text
        manifest = base64.b64encode(self._repository.read(".cvmfspublished")).decode()
        return json.dumps({**json.loads(text), "manifest": manifest})

    def _now(self, text: str) -> str:
        for old, new in self._tokens.items():
            text = text.replace(old, new)
        return text


class Told:
    """A subscriber that was recorded, subscribed again; a context manager."""

    def __init__(self, stream: Stream, url: str) -> None:
        self._stream = stream
        self._fqrn = str(json.loads(stream.text).get("repository", ""))
        self._listener: Subscription | WebSocketSubscriber
        if stream.kind == "websocket":
            self._listener = WebSocketSubscriber(url, _WAIT_S)
            self._listener.ask(stream.text.encode())
        else:
            agent = stream.headers.get("User-Agent", AGENT)
            server = Notifications(url, _WAIT_S)
            self._listener = server.subscribe(self._fqrn, agent=agent, body=stream.text.encode())

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.__exit__()

    def compare(self, ahead: int) -> None:
        """What is told must be as recorded, up to the last message; newer ones may take the place of older ones.

        Raises :exc:`Failed`.
        """
        recorded = [_revision(each) + ahead for each in self._stream.messages]
        seen: list[int] = []
        while recorded and recorded[-1] not in seen:
            found = self._listener.message(_WAIT_S)
            missing = set(self._stream.messages[-1]) - set(found)
            expect(not missing, f"a message without {', '.join(sorted(missing))}: {found}")
            equal(found.get("repository"), self._fqrn, "repository of a message")
            seen.append(_revision(found))
        rest = iter(recorded)
        in_order = all(revision in rest for revision in seen)
        expect(in_order, f"a subscriber was told of revisions {seen}, where {recorded} were recorded")


def _revision(message: Mapping[str, Any]) -> int:
    return Manifest.parse(base64.b64decode(str(message.get("manifest", "")))).revision
