"""The gateway's REST API as publishers and administrators use it. Nothing here judges a reply."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from conformance.pack import Pack
from conformance.trace import Trace, traced
from conformance.wire import Key, Reply, Url

API_ROOT: Final = "/api/v1"
FORM: Final = "application/x-www-form-urlencoded"
"""What the publishers' HTTP client says of every body."""
AGENT: Final = "cvmfs/2.12.0"


class Gateway:
    """One gateway, addressed with one key. *url* may end in ``/api/v1``; *trace* is told of each request."""

    def __init__(self, url: str, key: Key, timeout: float = 60.0, trace: Trace | None = None) -> None:
        self.url = Url(url.rstrip("/").removesuffix(API_ROOT))
        self.root = self.url.path + API_ROOT
        self.key = key
        self.timeout = timeout
        self._trace = trace

    def call(
        self,
        method: str,
        route: str,
        body: bytes | Iterable[bytes] = b"",
        *,
        key: Key | None = None,
        signed: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Send a request to *route*, below the API's root. It is signed only if *signed* is given."""
        all_headers = {"User-Agent": AGENT, "Content-Type": FORM}
        if signed is not None:
            all_headers["Authorization"] = (key or self.key).authorization(signed)
        all_headers |= headers or {}
        target, limit = self.root + route, timeout or self.timeout
        return traced(self._trace, self.url, method, target, body, all_headers, length=length, timeout=limit)

    def get(self, route: str) -> Reply:
        return self.call("GET", route)

    def post_json(self, route: str, content: Any, *, key: Key | None = None) -> Reply:
        """POST *content*, signed over the body."""
        body = json.dumps(content).encode()
        return self.call("POST", route, body, key=key, signed=body)

    def acquire(self, path: str, *, key: Key | None = None, **fields: object) -> Reply:
        """Ask for a lease; a field that is None is left out."""
        content = {"path": path, "api_version": "2", "hostname": "conformance.example.org", **fields}
        return self.post_json("/leases", {name: v for name, v in content.items() if v is not None}, key=key)

    def show(self, token: str) -> Reply:
        return self.get(f"/leases/{quote(token, safe='=')}")

    def drop(self, token: str, *, key: Key | None = None) -> Reply:
        return self.call("DELETE", f"/leases/{quote(token, safe='=')}", key=key, signed=token.encode())

    def renew(self, token: str, seconds: object = None, *, key: Key | None = None) -> Reply:
        """``PATCH``, of release 2.13."""
        body = b"" if seconds is None else json.dumps({"expires_in_sec": seconds}).encode()
        return self.call("PATCH", f"/leases/{quote(token, safe='=')}", body, key=key, signed=token.encode())

    def commit(self, token: str, old: str, new: str, *, key: Key | None = None, **fields: object) -> Reply:
        """Commit; *old* and *new* are names of root catalogs, without the suffix."""
        content = {
            "old_root_hash": f"{old}C",
            "new_root_hash": f"{new}C",
            "tag_name": "",
            "tag_description": "",
            "tag_channel": 0,
            **fields,
        }
        body = json.dumps({name: value for name, value in content.items() if value is not None}).encode()
        return self.call("POST", f"/leases/{quote(token, safe='=')}", body, key=key, signed=token.encode())

    def payload_parts(self, token: str, pack: Pack, *, in_url: bool = False, **fields: object) -> tuple[str, bytes]:
        """The route and the JSON in front of the pack."""
        content: dict[str, object] = {
            "session_token": token,
            "payload_digest": pack.digest,
            "header_size": pack.header_size,
            "api_version": "2",
            **fields,
        }
        if in_url:
            content.pop("session_token")
        route = f"/payloads/{quote(token, safe='=')}" if in_url else "/payloads"
        return route, json.dumps({name: value for name, value in content.items() if value is not None}).encode()

    def payload(
        self,
        token: str,
        pack: Pack,
        *,
        in_url: bool = False,
        key: Key | None = None,
        headers: Mapping[str, str] | None = None,
        signed: bytes | None = None,
        **fields: object,
    ) -> Reply:
        """Send an object pack, in the old way or with the token in the URL."""
        route, lead = self.payload_parts(token, pack, in_url=in_url, **fields)
        if signed is None:
            signed = token.encode() if in_url else lead
        all_headers = {"Message-Size": str(len(lead)), **(headers or {})}
        return self.call("POST", route, lead + pack.bytes, key=key, signed=signed, headers=all_headers)

    # --- administration -------------------------------------------------------------------------------------------

    def enable(self, fqrn: str, enable: object, *, key: Key | None = None, wait: bool = False) -> Reply:
        return self.post_json(f"/repos/{fqrn}", {"enable": enable, "wait": wait}, key=key)

    def cancel_by_path(self, path: str, *, key: Key | None = None) -> Reply:
        """*path* is ``<fqrn>/<path>``, not yet quoted."""
        signed = f"{self.root}/leases-by-path/{path}".encode()
        return self.call("DELETE", f"/leases-by-path/{quote(path)}", key=key, signed=signed)

    def collect(self, fqrn: str, *, key: Key | None = None, **fields: object) -> Reply:
        content = {"repo": fqrn, "num_revisions": 0, "timestamp": "0001-01-01T00:00:00Z", "dry_run": True}
        return self.post_json("/gc", content | {"verbose": False} | fields, key=key)
