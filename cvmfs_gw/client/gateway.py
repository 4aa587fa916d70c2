"""The gateway's REST API as a publisher uses it.

Source: ``/api/v1`` of the reference gateway, protocol version 3 on.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import urllib3

from cvmfs_gw.client.errors import ClientError, GatewayRefused, GatewayUnreachable, PathBusy
from cvmfs_gw.gateway.authorization import Key, sign
from cvmfs_objstore.formats.objectpack import PackBuilder, header_digest
from cvmfs_objstore.hashes import ContentHash

PROTOCOL: Final = 4
_TIMEOUT: Final = urllib3.Timeout(connect=30, read=3600)
_MAX_REPLY: Final = 16 << 20


def read_key_file(path: str) -> Key:
    """The key in a ``.gw`` file: one line ``plain_text <id> <secret>``. Raises :exc:`ClientError`."""
    try:
        with open(path, encoding="utf-8") as file:
            words = file.readline().split()
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(f"cannot read the gateway key: {error}") from error
    if len(words) != 3 or words[0] != "plain_text":
        raise ClientError(f"{path} is no gateway key file")
    return Key(words[1], words[2].encode())


@dataclass(frozen=True, slots=True)
class CommitReply:
    """What a commit published. ``tag_name`` is ``""`` where the gateway does not tell."""

    final_revision: int
    tag_name: str = ""


class GatewayClient:
    """One publisher's connection to a gateway. *url* ends in ``/api/v1``."""

    def __init__(self, url: str, key: Key) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT)

    def close(self) -> None:
        """Drop all connections."""
        self._pool.clear()

    def acquire(self, path: str) -> str:
        """Lease *path* (``<fqrn>/`` or ``<fqrn>/a/b``); returns the session token. Raises :exc:`PathBusy`."""
        body = json.dumps({"path": path, "api_version": str(PROTOCOL), "hostname": socket.gethostname()}).encode()
        reply = self._call("POST", "/leases", body, signed=body)
        if reply.get("status") == "path_busy":
            raise PathBusy(path, reply.get("time_remaining"))
        token = self._expect(reply, f"lease of {path}").get("session_token")
        if not isinstance(token, str):
            raise GatewayUnreachable("the gateway granted a lease without a token")
        return token

    def release(self, token: str) -> None:
        """Give a lease back."""
        self._expect(self._call("DELETE", f"/leases/{token}", signed=token.encode()), "release of the lease")

    def upload(self, token: str, pack: PackBuilder) -> None:
        """Send one object pack."""
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
        reply = self._call("POST", f"/payloads/{token}", body(), signed=token.encode(), headers=headers)
        self._expect(reply, "upload")

    def commit(
        self, token: str, old_root: ContentHash, new_root: ContentHash, tag: str = "", description: str = ""
    ) -> CommitReply:
        """Commit what was uploaded."""
        body = json.dumps(
            {
                "old_root_hash": str(old_root),
                "new_root_hash": str(new_root),
                "tag_name": tag,
                "tag_description": description,
                "tag_channel": 0,
            }
        ).encode()
        reply = self._expect(self._call("POST", f"/leases/{token}", body, signed=token.encode()), "commit")
        revision, tag_name = reply.get("final_revision"), reply.get("tag_name", "")
        if not isinstance(revision, int) or not isinstance(tag_name, str):
            raise GatewayUnreachable("the gateway's answer to the commit makes no sense")
        return CommitReply(revision, tag_name)

    def _call(
        self,
        method: str,
        route: str,
        body: bytes | Iterator[bytes] | None = None,
        *,
        signed: bytes,
        headers: dict[str, str] | None = None,
    ) -> dict[str, object]:
        all_headers = {"Authorization": sign(self._key, signed), **(headers or {})}
        try:
            reply = self._pool.request(
                method, self._url + route, body=body, headers=all_headers, preload_content=False, chunked=False
            )
            try:
                raw = reply.read(_MAX_REPLY)
            finally:
                reply.release_conn()
            content = json.loads(raw)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # The URL would show the session token, so only the server is named.
            raise GatewayUnreachable(f"no answer from {self._url}: {type(error).__name__}") from error
        if not isinstance(content, dict):
            raise GatewayUnreachable(f"{self._url} did not answer as a gateway does")
        return content

    @staticmethod
    def _expect(reply: dict[str, object], what: str) -> dict[str, object]:
        if reply.get("status") != "ok":
            raise GatewayRefused(what, str(reply.get("reason") or reply.get("status")))
        return reply
