"""``GET /api/v1/openapi.json``: the REST API as an OpenAPI 3.1 description."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from cvmfs_gw.api.messages import reply
from cvmfs_gw.gateway.protocol import API_ROOT, MAX_PAYLOAD_HEAD
from cvmfs_gw.gateway.waiting import MAX_WAIT_S
from cvmfs_gw.version import version

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TOKEN: Final = {"name": "token", "in": "path", "required": True, "schema": _TEXT}
_NAME: Final = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
_SIGNED: Final[list[dict[str, list[str]]]] = [{"signature": []}]

_LEASE: Final = {
    "type": "object",
    "required": ["key_id", "path", "expires"],
    "properties": {
        "key_id": _TEXT,
        "path": _TEXT,
        "expires": {"type": "string", "description": "as in 2026-11-20 08:41:48.712 +0000 UTC"},
        "hostname": _TEXT,
        "age": {**_COUNT, "description": "seconds"},
        "expires_in": {**_COUNT, "description": "seconds"},
        "state": {"enum": ["open", "committing"]},
        "uploading": {**_COUNT, "description": "object packs that are coming in"},
        "objects": _COUNT,
        "bytes": _COUNT,
    },
}
_REPOSITORY: Final = {
    "type": "object",
    "required": ["keys", "enabled"],
    "properties": {"keys": {"type": "object", "additionalProperties": _TEXT}, "enabled": {"type": "boolean"}},
}
_STATUS: Final = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"enum": ["ok", "error", "path_busy", "repo_busy"]}, "reason": _TEXT, "detail": _TEXT},
}


def _body(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _operation(
    summary: str,
    *parameters: dict[str, Any],
    answer: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
    signed: str = "",
) -> dict[str, Any]:
    """*answer* is what a reply has beside ``status``; *signed* is what the signature is of, empty for none."""
    schema = {"allOf": [{"$ref": "#/components/schemas/Status"}, {"type": "object", "properties": answer or {}}]}
    content = {"application/json": {"schema": schema}}
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {
            "200": {"description": "done, or refused: see status", "content": content},
            "default": {"description": "a request that makes no sense, or a breakdown", "content": content},
        },
    }
    if body is not None:
        operation["requestBody"] = body
    if signed:
        operation["security"] = _SIGNED
        operation["description"] = f"Signed: {signed}."
    return operation


_COMMIT: Final = {
    "old_root_hash": _TEXT,
    "new_root_hash": _TEXT,
    "tag_name": _TEXT,
    "tag_description": _TEXT,
    "tag_channel": {"type": "integer"},
    "auto_tag_threshold": {"type": "integer", "description": "seconds since the epoch; automatic tags before it go"},
    "delete_tags": {"type": "string", "description": "names with spaces between them"},
}
_LEASE_REQUEST: Final = {
    "path": {"type": "string", "description": "<repository>/ or <repository>/a/b"},
    "api_version": {"type": ["string", "integer"]},
    "hostname": _TEXT,
    "wait": {"type": ["string", "integer"], "description": f"seconds to wait for the path, {MAX_WAIT_S:.0f} at most"},
}
_PACK: Final = {
    "required": True,
    "description": "Message-Size bytes of JSON (payload_digest, header_size, session_token), then the object pack",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
_MESSAGE_SIZE: Final = {
    "name": "Message-Size",
    "in": "header",
    "required": True,
    "schema": {"type": "integer", "minimum": 0, "maximum": MAX_PAYLOAD_HEAD},
}
_WAIT_HEADER: Final = {"name": "Lease-Wait", "in": "header", "schema": _COUNT, "description": "the same as wait"}

PATHS: Final[dict[str, Any]] = {
    "/repos": {
        "get": _operation("All repositories", answer={"data": {"type": "object", "additionalProperties": _REPOSITORY}})
    },
    "/repos/{name}": {
        "get": _operation("One repository", _NAME, answer={"data": _REPOSITORY}),
        "post": _operation(
            "Enable or disable a repository",
            _NAME,
            body=_body({"enable": {"type": "boolean"}, "wait": {"type": "boolean"}}, ["enable"]),
            signed="the body, by an administrator's key",
        ),
    },
    "/repos/{name}/keys": {
        "get": _operation(
            "Public key and certificate",
            _NAME,
            answer={"data": {"type": "object", "properties": {"pub": _TEXT, "crt": _TEXT}}},
            signed="the URL's path",
        )
    },
    "/leases": {
        "get": _operation("All leases", answer={"data": {"type": "object", "additionalProperties": _LEASE}}),
        "post": _operation(
            "Take a lease",
            _WAIT_HEADER,
            body=_body(_LEASE_REQUEST, ["path", "api_version"]),
            answer={
                "session_token": _TEXT,
                "max_api_version": {"type": "integer"},
                "revision": _COUNT,
                "root_hash": _TEXT,
                "time_remaining": _TEXT,
            },
            signed="the body",
        ),
    },
    "/leases/{token}": {
        "get": _operation("One lease", _TOKEN, answer={"data": _LEASE}),
        "post": _operation(
            "Commit",
            _TOKEN,
            body=_body(_COMMIT, ["old_root_hash", "new_root_hash"]),
            answer={"final_revision": _COUNT, "tag_name": _TEXT, "missing_objects": _COUNT},
            signed="the token",
        ),
        "patch": _operation(
            "Renew a lease",
            _TOKEN,
            answer={"data": {"type": "object", "properties": {"expires": _TEXT}}},
            signed="the token",
        ),
        "delete": _operation("Cancel a lease", _TOKEN, signed="the token"),
    },
    "/leases-by-path/{path}": {
        "delete": _operation(
            "Cancel the leases at and below a path",
            {"name": "path", "in": "path", "required": True, "schema": _TEXT},
            signed="the URL's path, by an administrator's key",
        )
    },
    "/payloads": {"post": _operation("Send an object pack", _MESSAGE_SIZE, body=_PACK, signed="the JSON head")},
    "/payloads/{token}": {
        "post": _operation("Send an object pack", _TOKEN, _MESSAGE_SIZE, body=_PACK, signed="the token")
    },
    "/gc": {
        "post": _operation(
            "Collect garbage",
            body=_body(
                {
                    "repo": _TEXT,
                    "num_revisions": {"type": "integer"},
                    "timestamp": _TEXT,
                    "dry_run": {"type": "boolean"},
                    "verbose": {"type": "boolean"},
                },
                ["repo"],
            ),
            answer={"output": _TEXT},
            signed="the body, by an administrator's key",
        )
    },
    "/status": {"get": _operation("What is going on")},
}
"""Paths below the API's root. Notification streams are no JSON and are described where they are made."""


def description() -> dict[str, Any]:
    """The whole document."""
    signature = {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "<key id> <base64(lower-case hex(HMAC-SHA1(secret, what is signed)))>",
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "CernVM-FS repository gateway", "version": version()},
        "servers": [{"url": API_ROOT}],
        "paths": PATHS,
        "components": {"schemas": {"Status": _STATUS}, "securitySchemes": {"signature": signature}},
    }


async def openapi(request: web.Request) -> web.Response:
    return reply(description())


def routes(root: str) -> list[web.RouteDef]:
    return [web.get(f"{root}/openapi.json", openapi)]
