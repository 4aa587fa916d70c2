"""``/repos/<name>/checks``: check a repository for all kinds of faults.

A check is a background job: it is started, and its progress is polled. Only for administrators.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web

from cvmfs_gw.api.context import authorization, json_body, service, url_path
from cvmfs_gw.api.describe import COUNT, FLAG, TEXT, Paths, in_path, json_request, operation
from cvmfs_gw.api.messages import decode, reply
from cvmfs_gw.care.check import CheckOptions, CheckReport
from cvmfs_gw.care.digests import FOLDERS
from cvmfs_gw.gateway.care import CheckJob
from cvmfs_gw.text import printable

MAX_SHOWN: Final = 1000
"""The maximum number of faults in a reply."""


class CheckRequest(msgspec.Struct, frozen=True):
    """``POST /repos/<name>/checks``; see :class:`~cvmfs_gw.care.check.CheckOptions`."""

    tag: str = ""
    every_tag: bool = False
    objects: bool = True
    integrity: bool = False
    subtree: str = ""


async def begin(request: web.Request) -> web.Response:
    body = await json_body(request)
    service(request).access.authorize_admin(authorization(request), body)
    wanted = decode(body, CheckRequest)
    objects = wanted.objects or wanted.integrity
    options = CheckOptions(wanted.tag, wanted.every_tag, objects, wanted.integrity, wanted.subtree)
    job = await service(request).care.begin_check(request.match_info["name"], options)
    return reply({"status": "ok", **_shown(job)})


async def look(request: web.Request) -> web.Response:
    service(request).access.authorize_admin(authorization(request), url_path(request))
    job = service(request).care.check(request.match_info["name"], request.match_info["job"])
    return reply({"status": "ok", **_shown(job)})


def _shown(job: CheckJob) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": job.id,
        "state": job.state,
        "began": int(job.began),
        "catalogs": job.catalogs,
        "objects": job.objects,
        "progress": round(job.folders / FOLDERS, 3),
    }
    if job.error:
        shown["error"] = job.error
    if job.report is not None:
        report = report_as_json(job.report)
        shown["report"] = {**report, "faults": report["faults"][:MAX_SHOWN]}
    return shown


def report_as_json(report: CheckReport) -> dict[str, Any]:
    """The report as plain values; sizes are in bytes."""
    return {
        "repository": report.fqrn,
        "revision": report.revision,
        "ok": report.ok,
        "errors": report.faults.errors,
        "warnings": report.faults.warnings,
        "catalogs": report.catalogs,
        "entries": report.entries,
        "objects": report.objects,
        "stored": report.stored,
        "unreferenced": report.unreferenced,
        "bytes_read": report.bytes_read,
        "faults": [
            {
                "kind": fault.kind.code,
                "severity": fault.kind.severity.value,
                "place": printable(fault.place),
                "what": fault.kind.what,
                "detail": printable(fault.detail),
                "remedy": fault.kind.remedy,
            }
            for fault in report.faults
        ],
    }


_NAME: Final = in_path("name")
_JOB: Final = {
    "id": TEXT,
    "state": {"enum": ["running", "done", "failed"]},
    "began": {**COUNT, "description": "seconds since the epoch"},
    "catalogs": COUNT,
    "objects": COUNT,
    "progress": {"type": "number", "description": "the part of the storage that has been checked"},
    "error": TEXT,
    "report": {"type": "object"},
}
PATHS: Final[Paths] = {
    "/repos/{name}/checks": {
        "post": operation(
            "Start a check",
            _NAME,
            body=json_request(
                {"tag": TEXT, "every_tag": FLAG, "objects": FLAG, "integrity": FLAG, "subtree": TEXT}, []
            ),
            answer=_JOB,
            signed="body",
            admin=True,
        )
    },
    "/repos/{name}/checks/{job}": {
        "get": operation(
            "The progress and report of a check", _NAME, in_path("job"), answer=_JOB, signed="path", admin=True
        )
    },
}


def routes(root: str) -> list[web.RouteDef]:
    return [
        web.post(f"{root}/repos/{{name}}/checks", begin),
        web.get(f"{root}/repos/{{name}}/checks/{{job}}", look),
    ]
