"""``cvmfs-gw resign FQRN``: sign the whitelist again with the master key, or the manifest with the repository's key.

Keys are rolled over in three steps: put the new FQRN.key and FQRN.crt into the keys folder and run ``resign`` (both
certificates are listed then), run ``resign --manifest``, and when no cache has the old manifest any more, run
``resign --only-own``.
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cvmfs_gw.care.resign import WHITELIST_PATH, resign_manifest, resign_whitelist
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.whitelist import SignedWhitelist

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("resign", help="sign whitelist or manifest again", description=__doc__)
    parser.add_argument("fqrn", help="the repository")
    parser.add_argument("-d", "--days", type=int, default=30, metavar="N", help="validity (default: %(default)s)")
    parser.add_argument("--only-own", action="store_true", help="list no certificate but the repository's present one")
    parser.add_argument("--manifest", action="store_true", help="sign the manifest, not the whitelist")
    parser.add_argument("--show", action="store_true", help="sign nothing, and say when the whitelist expires")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Sign, and say what."""
    repository = Repository(arguments.fqrn, paths, os.environ)
    now = time.time()
    if arguments.show:
        whitelist = SignedWhitelist.parse(repository.storage.read(WHITELIST_PATH)).whitelist
        left = whitelist.expires - datetime.fromtimestamp(now, UTC)
        print(f"{arguments.fqrn}: the whitelist expires on {whitelist.expires:%Y-%m-%d %H}:00 UTC, in {left.days} days")
        return 0 if left > timedelta(0) else 1
    if arguments.manifest:
        head = resign_manifest(repository, now)
        print(f"{arguments.fqrn}: signed the manifest of revision {head.revision}, certificate {head.certificate}")
        return 0
    whitelist = resign_whitelist(
        repository, now, validity=timedelta(days=arguments.days), keep_others=not arguments.only_own
    )
    print(f"{arguments.fqrn}: signed the whitelist, good until {whitelist.expires:%Y-%m-%d %H}:00 UTC, for")
    for line in whitelist.fingerprints:
        print(f"  {line}")
    return 0
