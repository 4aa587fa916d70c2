"""Building blocks with which a resource describes its routes, as parts of an OpenAPI 3.1 document.

Each module of routes has ``PATHS`` beside ``routes``: path below the API's root -> method -> :func:`operation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Paths = Mapping[str, Mapping[str, Any]]

TEXT: Final = {"type": "string"}
COUNT: Final = {"type": "integer", "minimum": 0}
FLAG: Final = {"type": "boolean"}

SCHEMAS: Final[Mapping[str, Any]] = {
    "Status": {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"enum": ["ok", "error", "path_busy", "repo_busy"]}, "reason": TEXT, "detail": TEXT},
    }
}
"""Components that descriptions refer to by name."""
_STATUS: Final = {"$ref": "#/components/schemas/Status"}

SECURITY: Final[Mapping[str, Any]] = {
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "<key id> <base64(lower-case hex(HMAC-SHA1(secret, what is signed)))>",
    }
}

SIGNED: Final[Mapping[str, str]] = {
    "body": "the body",
    "token": "the token",
    "path": "the URL's path, percent-decoded",
    "head": "the JSON before the object pack",
    "request": "method, URL path with query, X-Cvmfs-Date and X-Content-SHA256, separated by line feeds; or a token",
}
"""The messages that may be signed."""


def in_path(name: str) -> dict[str, Any]:
    """A parameter that is a part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def in_header(name: str, schema: Mapping[str, Any], description: str = "", *, required: bool = False) -> dict[str, Any]:
    """A parameter that is a header field."""
    header: dict[str, Any] = {"name": name, "in": "header", "required": required, "schema": schema}
    return {**header, "description": description} if description else header


def struct(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """The schema of a JSON object."""
    return {"type": "object", "required": required or [], "properties": properties}


def table(of: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a JSON object with arbitrary names."""
    return {"type": "object", "additionalProperties": of}


def json_request(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    """A request's body."""
    return {"required": True, "content": {"application/json": {"schema": struct(properties, required)}}}


def operation(
    summary: str,
    *parameters: Mapping[str, Any],
    answer: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    signed: str = "",
    admin: bool = False,
    bare: bool = False,
    errors: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """*answer* are the members of a reply beside ``status``, which a *bare* reply does not have.

    *errors* are HTTP codes with a special meaning here, each with its description.

    *signed* is the message that is signed, one of :data:`SIGNED`, or empty if there is no signature; *admin*: only by
    an administrator's key. Programs find the former as ``x-signed``.
    """
    refusal = {"application/json": {"schema": _STATUS}}
    schema = struct(answer or {}) if bare else {"allOf": [_STATUS, struct(answer or {})]}
    described: dict[str, Any] = {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {
            "200": {
                "description": "done" if bare else "done, or refused: see status",
                "content": {"application/json": {"schema": schema}},
            },
            **{code: {"description": words, "content": refusal} for code, words in (errors or {}).items()},
            "default": {"description": "a malformed request, or an internal error", "content": refusal},
        },
    }
    if body is not None:
        described["requestBody"] = body
    if signed:
        described["security"] = [{"signature": []}]
        described["description"] = f"Signed: {SIGNED[signed]}{', by an administrator' * admin}."
        described["x-signed"] = signed
    return described
