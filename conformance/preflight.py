"""A look before anything is changed: whether there is such a gateway and repository, and whether it may be filled.

What is wrong is said in one line, instead of by hundreds of cases that fail.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from conformance.gateway import Gateway
from conformance.outcomes import Failed
from conformance.repository import Repository
from conformance.target import Target

OURS: Final = "conf-"
"""What names begin with that the suite makes in a repository's top directory."""
_ALWAYS: Final = ("new_repository", ".cvmfsdirtab")
_SHOWN: Final = 4
_TIMEOUT_S: Final = 20.0


def look(target: Target, *, force: bool = False) -> None:
    """Raises ``ValueError``, with what is to be done about it. *force*: whatever the repository holds."""
    gateway = Gateway(target.gateway, target.key, min(target.timeout, _TIMEOUT_S))
    _gateway(target, gateway)
    _lease(target, gateway)
    held = sorted(
        path for path in gateway.get("/leases").json.get("data") or {} if path.partition("/")[0] == target.fqrn
    )
    if held and not force:
        raise ValueError(
            f"somebody holds a lease on {held[0]}{f' and {len(held) - 1} more' if len(held) > 1 else ''}: cases that "
            "lease the whole repository would fail; wait, cancel it, or say --force"
        )
    tops = _tops(target)
    narrow = target.restricted_path.strip("/").partition("/")[0]
    foreign = sorted(name for name in tops if not name.startswith(OURS) and name not in (*_ALWAYS, narrow))
    if foreign and not force:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise ValueError(
            f"{target.fqrn} holds what this suite has not made ({', '.join(foreign[:_SHOWN])}{more}), and would be "
            "filled with rubbish: name a repository that is made for this, or say --force"
        )


def _gateway(target: Target, gateway: Gateway) -> None:
    try:
        reply = gateway.get("/repos")
    except OSError as error:
        raise ValueError(f"--gateway: nothing answers at {target.gateway}: {error}") from None
    except Failed as failure:
        raise ValueError(f"--gateway: what answers at {target.gateway} is no HTTP server: {failure}") from None
    try:
        repos: dict[str, Any] = reply.json["data"]
    except (Failed, KeyError):
        raise ValueError(f"--gateway: what answers at {target.gateway} is no gateway: {reply}") from None
    if target.fqrn not in repos:
        raise ValueError(
            f"--repo: the gateway does not serve {target.fqrn}, but {', '.join(sorted(repos)) or 'nothing'}"
        )
    found = repos[target.fqrn]
    if not found.get("enabled", True):
        raise ValueError(f"--repo: {target.fqrn} is disabled at the gateway")
    if target.key.id not in found.get("keys", {target.key.id: ""}):
        raise ValueError(f"--key: the gateway has no key {target.key.id!r} for {target.fqrn}")


def _lease(target: Target, gateway: Gateway) -> None:
    reply = gateway.acquire(f"{target.fqrn}/{OURS}{secrets.token_hex(8)}")
    status, reason = reply.json.get("status"), reply.json.get("reason", "")
    if status == "path_busy":
        raise ValueError(f"somebody holds a lease on all of {target.fqrn}")
    if status != "ok" and "hmac" in str(reason):
        raise ValueError(f"--key: the gateway has another secret for the key {target.key.id!r}")
    if status != "ok":
        raise ValueError(f"the gateway grants no lease on {target.fqrn}: {reason}")
    gateway.drop(reply.json["session_token"])


def _tops(target: Target) -> list[str]:
    """Names in the top directory."""
    repository = Repository(target.stratum0, target.fqrn, min(target.timeout, _TIMEOUT_S))
    try:
        return [path[1:] for path in repository.tree().children("")]
    except (OSError, Failed) as error:
        raise ValueError(f"--stratum0: no repository can be read at {target.web}: {error}") from None
