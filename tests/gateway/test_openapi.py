"""The OpenAPI description that the gateway serves, tried against the gateway with whatever Schemathesis thinks of.

Half of the requests are signed as the description says, so that what comes behind the signature is reached.
``CVMFS_GW_EXAMPLES=1000`` tries more than a handful for each operation.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cvmfs_gw.api.app import RESOURCES
from cvmfs_gw.api.openapi import description
from cvmfs_gw.gateway.authorization import Key, sign
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.stratum0.authorization import Asked
from cvmfs_gw.stratum0.settings import RepositorySettings, UploadSettings
from tests.client.support import Server
from tests.engine.repositories import FQRN, make_keys
from tests.gateway.support import ADMIN, digest_of, pack, write

EXAMPLES: Final = int(os.environ.get("CVMFS_GW_EXAMPLES", "15"))
AnyCase = schemathesis.Case[Any]
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DOCUMENT: Final[dict[str, Any]] = json.loads(json.dumps(description(resource.PATHS for resource in RESOURCES)))


def operations() -> dict[str, Any]:
    """Every operation of the description, by its name."""
    found: dict[str, Any] = {}
    for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations():
        assert isinstance(result, Ok), result
        found[result.ok().label] = result.ok()
    return found


OPERATIONS: Final = operations()


class Gateway:
    """A gateway with a real engine, an administrator's key, and a lease that stays open."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.session = requests.Session()
        self.key = read_key(server)
        self._taken = itertools.count()
        self.token = self.lease(f"{FQRN}/open")

    def ask(self, method: str, path: str, body: bytes, key: Key, signed: bytes) -> dict[str, Any]:
        """What the gateway answers, which has to be ok."""
        headers = {"Authorization": sign(key, signed)}
        reply = self.session.request(method, self.server.gateway + path, data=body, headers=headers, timeout=30).json()
        assert reply["status"] == "ok"
        assert isinstance(reply, dict)
        return reply

    def lease(self, path: str) -> str:
        body = json.dumps({"path": path, "api_version": "4"}).encode()
        return str(self.ask("POST", "/leases", body, self.key, body)["session_token"])

    def enable(self) -> None:
        body = b'{"enable":true}'
        self.ask("POST", f"/repos/{FQRN}", body, ADMIN, body)

    def send(self, case: AnyCase, key: Key | None) -> requests.Response:
        """Send what was generated, signed by *key* as the operation says."""
        arguments = case.as_transport_kwargs(base_url=self.server.gateway)
        request = self.session.prepare_request(requests.Request(**arguments))
        signed = case.operation.definition.raw.get("x-signed")
        if key is not None and signed is not None:
            body = request.body.encode() if isinstance(request.body, str) else request.body or b""
            assert isinstance(body, bytes)
            path = unquote_to_bytes(urlsplit(str(request.url)).path)
            size = request.headers.get("Message-Size", "")
            message = {
                "body": body,
                "path": path,
                "token": path.rpartition(b"/")[2],
                "head": body[: int(size) if size.isdigit() else 0],
                "request": self.described(request, body),
            }[signed]
            request.headers["Authorization"] = sign(key, message)
        response = self.session.send(request, timeout=30)
        if case.method == "POST" and case.path == "/leases" and response.json()["status"] == "ok":
            token = response.json()["session_token"]
            self.ask("DELETE", f"/leases/{token}", b"", ADMIN, token.encode())
        return response

    @staticmethod
    def described(request: requests.PreparedRequest, body: bytes) -> bytes:
        """What is signed of a request for the upload API."""
        checksum = hashlib.sha256(body).hexdigest() if body else ""
        date = str(int(time.time()))
        request.headers.update({"X-Cvmfs-Date": date, "X-Content-SHA256": checksum})
        split = urlsplit(str(request.url))
        target = split.path + (f"?{split.query}" if split.query else "")
        return Asked(str(request.method), target, date=date, checksum=checksum).message

    def make_sense(self, case: AnyCase, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        """Put in what exists: the repository, the open lease, an object pack."""
        if "name" in case.path_parameters:
            case.path_parameters["name"] = FQRN
        if "token" in case.path_parameters and case.method != "DELETE":
            case.path_parameters["token"] = self.token
        if "path" in case.path_parameters:
            case.path_parameters["path"] = f"{FQRN}/nothing"
        if case.path.startswith("/payloads"):
            header, data = pack(draw(st.lists(st.binary(max_size=100), max_size=3)))
            head = {
                "session_token": self.token,
                "payload_digest": digest_of(header),
                "header_size": draw(st.sampled_from([len(header), str(len(header)), 0, "x", None])),
            }
            encoded = json.dumps(head).encode()
            case.headers["Message-Size"] = str(len(encoded))
            case.body = encoded + header + data + draw(st.sampled_from([b"", b"", b"more"]))
        elif isinstance(case.body, dict):
            if "path" in case.body:
                case.body["path"] = f"{FQRN}/{next(self._taken)}"
            if "repo" in case.body:
                case.body["repo"] = FQRN


def read_key(server: Server) -> Key:
    with open(server.paths.key_file(FQRN, "gw"), encoding="ascii") as file:
        _, key_id, secret = file.read().split()
    return Key(key_id, secret.encode())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = SystemPaths(str(tmp_path_factory.mktemp("keys")))
    make_keys(FQRN, keys)
    server = Server(str(tmp_path_factory.mktemp("root")), keys.keys)
    admin = {"type": "plain_text", "id": ADMIN.id, "secret": ADMIN.secret.decode(), "admin": True}
    write(server.paths.access_config, {"version": 2, "repos": [FQRN], "keys": [admin]})
    write(server.paths.user_config, {"enable_key_endpoint": True})
    UploadSettings({FQRN: RepositorySettings()}, {}).save(server.paths.upload_config)
    with server:
        gateway = Gateway(server)
        yield gateway
        gateway.session.close()


@pytest.mark.parametrize("label", OPERATIONS)
def test_operation(label: str, gateway: Gateway) -> None:
    operation = OPERATIONS[label]
    checks = CHECKS
    if "500" in operation.definition.raw["responses"]:  # which the reference takes for "not found" there
        checks = [check for check in CHECKS if check is not not_a_server_error]
    gateway.enable()

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(), data=st.data())
    def attempt(case: AnyCase, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([None, gateway.key, ADMIN]), label="key")
        if data.draw(st.booleans(), label="with sense"):
            gateway.make_sense(case, data.draw)
        case.validate_response(gateway.send(case, key), checks=checks)

    attempt()
