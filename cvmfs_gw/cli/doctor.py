"""``cvmfs-gw doctor [FQRN ...]``: say what is wrong with configuration, machine and web server, and how to mend it.

Looks at the gateway and at all of its repositories, or at those that are named, directly and through the proxies of
clients on this machine. Changes nothing. Exit code 0 if there are no errors (warnings may be), 1 if there are.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from cvmfs_gw.care.faults import Severity
from cvmfs_gw.doctor.findings import Finding
from cvmfs_gw.doctor.machine import examine_gateway
from cvmfs_gw.doctor.proxies import configured_proxies, examine_proxy, normal_url
from cvmfs_gw.doctor.repository import examine_repository
from cvmfs_gw.doctor.website import examine_url
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.text import printable

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("doctor", help="diagnose configuration, machine and repositories", description=__doc__)
    parser.add_argument("fqrns", nargs="*", metavar="FQRN", help="default: all that the gateway serves")
    parser.add_argument(
        "-p",
        "--proxy",
        action="append",
        metavar="URL",
        help="look through this one (default: what clients are told)",
    )
    parser.add_argument("--no-web", action="store_true", help="do not ask the repositories' URLs")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Examine, and say what was found."""
    findings, served = examine_gateway(paths)
    fqrns = arguments.fqrns or served
    for fqrn in fqrns:
        found, repository = examine_repository(fqrn, paths, os.environ, time.time())
        findings += found
        if repository is not None and not arguments.no_web:
            findings += examine_url(repository, time.time())
            for proxy in arguments.proxy or configured_proxies(repository, paths):
                findings += examine_proxy(repository, normal_url(proxy), time.time())
    findings.sort(key=lambda finding: finding.severity is not Severity.ERROR)
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if arguments.json:
        shown = [{name: printable(value) for name, value in asdict(finding).items()} for finding in findings]
        print(json.dumps({"ok": not errors, "repositories": fqrns, "findings": shown}, indent=2))
    else:
        _print(findings, fqrns, errors)
    return 1 if errors else 0


def _print(findings: list[Finding], fqrns: list[str], errors: int) -> None:
    for finding in findings:
        print(printable(str(finding)))
    what = ", ".join(fqrns) or "no repository"
    print(f"looked at the gateway and {what}: {errors} errors, {len(findings) - errors} warnings")
