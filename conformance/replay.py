"""A recorded session played to a gateway: what publishers said, signed again, with this gateway's tokens and heads.

A publisher that commits after somebody else names the head that it found, and that is another one on each gateway.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from conformance.gateway import Gateway
from conformance.model import Failed, equal, expect
from conformance.objects import object_path
from conformance.session import Exchange, Session
from conformance.wire import Key, Reply

_OLD_ROOT: Final = re.compile(r'("old_root_hash"\s*:\s*")([0-9a-f]{40}(?:-rmd160|-shake128)?)C')
_DURATION: Final = re.compile(r"(\d+h)?(\d+m)?\d+(\.\d+)?(s|ms)")
_COMPARED: Final = ("status", "reason", "time_remaining", "final_revision", "session_token", "max_api_version")
"""Members that every gateway must give; others are there in some and not in others."""


class Player:
    """Plays one session; remembers the tokens that were granted in place of the recorded ones."""

    def __init__(self, gateway: Gateway, session: Session, key: Key, head: Callable[[], str] | None = None) -> None:
        """*head* tells the hash of the present root catalog; without it hashes are left as they were recorded."""
        self._gateway, self._session, self._key, self._head = gateway, session, key, head
        self._tokens: dict[str, str] = {}

    def play(self, ahead: int = 0) -> None:
        """Play all of it; replies must be as recorded, with revisions *ahead*. Raises :exc:`Failed`, ``OSError``."""
        for number, exchange in enumerate(self._session.exchanges, 1):
            reply = self.ask(exchange)
            try:
                self._compare(exchange, reply, ahead)
            except Failed as failure:
                where = f"request {number} ({exchange.method} {exchange.path})"
                raise Failed(f"{where}: {failure}; the reply is {reply}") from failure

    def ask(self, exchange: Exchange) -> Reply:
        """Send one recorded request as it must be now."""
        route = self._now(exchange.path).partition("/api/v1")[2]
        text = self._with_head(self._now(exchange.text)).encode("utf-8", "surrogateescape")
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
        if found is None or self._head is None:
            return text
        name = found[2]
        was_there = f"srv/cvmfs/{self._session.fqrn}/{object_path(name, 'C')}" in self._session.initial
        return text if was_there else text.replace(found[0], f"{found[1]}{self._head()}C")

    def _now(self, text: str) -> str:
        for old, new in self._tokens.items():
            text = text.replace(old, new)
        return text
