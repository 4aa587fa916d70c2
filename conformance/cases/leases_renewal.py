"""Renewal of leases, and what becomes of those that expire."""

from __future__ import annotations

import time

from conformance.cases.leases_times import moment
from conformance.outcomes import NotApplicable, equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, refused, turned_down
from conformance.registry import API, API13, case, each
from conformance.wire import Reply


def renewed(probe: Probe, token: str, seconds: object = None) -> Reply:
    """The reply to a renewal; not applicable where there is none."""
    reply = probe.gateway.renew(token, seconds)
    if reply.status in (404, 405):
        raise NotApplicable("this gateway does not renew leases")
    return reply


@case("leases.renew", "PATCH /leases/<token> answers ok and tells when the lease expires now", API13)
def renew(probe: Probe) -> None:
    reply = accepted(renewed(probe, probe.acquire()), "renewal")
    expect(moment(str(reply.get("data", {}).get("expires"))) > time.time() + 10, f"the reply is {reply}")


@case("leases.renew.seconds", "a renewal with expires_in_sec gives the lease that long", API13)
def renew_seconds(probe: Probe) -> None:
    reply = accepted(renewed(probe, probe.acquire(), 600), "renewal")
    left = moment(str(reply["data"]["expires"])) - time.time()
    expect(590 < left < 610, f"{left:.0f} seconds are left")


@case("leases.renew.shown", "a renewed lease is shown with its new end", API13)
def renew_shown(probe: Probe) -> None:
    token = probe.acquire()
    reply = accepted(renewed(probe, token, 300), "renewal")
    equal(probe.gateway.show(token).json["data"]["expires"], reply["data"]["expires"], "expires")


@case("leases.renew.most", "no renewal gives a lease more than the longest life that leases have here", API13)
def renew_most(probe: Probe) -> None:
    token = probe.acquire()
    usual = moment(probe.gateway.show(token).json["data"]["expires"])
    reply = accepted(renewed(probe, token, 10**9), "renewal")
    expect(moment(str(reply["data"]["expires"])) <= usual + 120, f"it has until {reply['data']['expires']}")


@case("leases.renew.unknown", "an unknown token cannot be renewed", API13)
def renew_unknown(probe: Probe) -> None:
    refused(renewed(probe, "UNKNOWN"), "renewal", "invalid lease")


@each(
    "leases.renew.wrong",
    API13,
    {
        "zero": ("a renewal by 0 seconds is turned down", 0),
        "negative": ("a renewal by less than nothing is turned down", -5),
        "text": ("a renewal by a text is turned down", "soon"),
    },
)
def renew_wrong(probe: Probe, seconds: object) -> None:
    token = probe.acquire()
    turned_down(renewed(probe, token, seconds), "renewal")
    equal(probe.gateway.show(token).status, 200, "HTTP status of the lease")


@case("leases.renew.probe", "PUT /leases/<token>, by which some publishers ask for renewal, is HTTP 405", API13)
def put(probe: Probe) -> None:
    token = probe.acquire()
    equal(probe.gateway.call("PUT", f"/leases/{token}", signed=token.encode()).status, 405, "HTTP status")


def expired(probe: Probe, path: str) -> str:
    """The token of a lease on *path* that has just expired."""
    token = probe.acquire(path)
    accepted(renewed(probe, token, 1), "renewal")
    probe.until("the lease expires", lambda: probe.gateway.show(token).status != 200, 10)
    return token


@each(
    "leases.expired",
    API,
    {
        "path": ("a lease that has expired is in nobody's way", "path"),
        "listed": ("a lease that has expired is not listed", "listed"),
        "payload": ("a payload for a lease that has expired is refused as invalid lease", "payload"),
        "commit": ("a lease that has expired cannot be committed", "commit"),
    },
)
def after_expiry(probe: Probe, what: str) -> None:
    path = probe.path()
    token = expired(probe, path)
    if what == "path":
        probe.acquire(path)
    elif what == "listed":
        expect(probe.fqrn + path not in probe.listing(), "it is listed")
    elif what == "payload":
        refused(probe.gateway.payload(token, Pack.of([probe.new_object()])), "payload", "invalid lease")
    else:
        root = probe.repository.manifest().root
        refused(probe.gateway.commit(token, root, root), "commit", "invalid lease")
