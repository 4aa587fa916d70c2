"""``cvmfs-gw publish FQRN[/SUBPATH] SOURCE_DIR``: make a part of a repository equal to a directory."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from cvmfs_gw.client.errors import ClientError
from cvmfs_gw.client.gateway import read_key_file
from cvmfs_gw.client.publish import Progress, PublishRequest, publish
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.compression import Compression

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("publish", help="publish a directory", description=__doc__)
    parser.add_argument("target", metavar="FQRN[/SUBPATH]", help="what becomes equal to the directory")
    parser.add_argument("source", metavar="SOURCE_DIR")
    parser.add_argument("--gateway", default="http://localhost:4929/api/v1", metavar="URL", help="default: %(default)s")
    parser.add_argument("--stratum0", metavar="URL", help="default: http://localhost:8080/cvmfs/FQRN")
    parser.add_argument("--key", metavar="FILE", help="gateway key (default: FQRN.gw in the keys folder)")
    parser.add_argument("--pub", metavar="FILE", help="public master key (default: FQRN.pub in the keys folder)")
    parser.add_argument("--tag", default="", metavar="NAME", help="name the new revision")
    parser.add_argument("--description", default="", metavar="TEXT", help="of the tag")
    parser.add_argument("--compression", default="default", choices=("default", "zlib", "none"))
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on the terminal")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Publish and say what came of it."""
    fqrn, _, subpath = arguments.target.partition("/")
    target = LeasePath.parse(f"{fqrn}/{subpath.strip('/')}").path
    if not os.path.isdir(arguments.source):
        raise ClientError(f"{arguments.source} is no directory")
    request = PublishRequest(
        fqrn=fqrn,
        target=target,
        directory=arguments.source,
        gateway=arguments.gateway,
        stratum0=arguments.stratum0 or f"http://localhost:8080/cvmfs/{fqrn}",
        key=read_key_file(arguments.key or paths.key_file(fqrn, "gw")),
        public_keys=_read(arguments.pub or paths.key_file(fqrn, "pub")),
        tag=arguments.tag,
        description=arguments.description,
        compression=Compression.from_config(arguments.compression),
    )
    progress = Progress() if arguments.quiet or not sys.stderr.isatty() else TerminalProgress()
    report = publish(request, progress)
    print(f"{fqrn}: revision {report.revision}, {report.objects} new objects, {report.sent:,} bytes sent")
    return 0


class TerminalProgress(Progress):
    """One line on the terminal that is written over and over."""

    def __init__(self) -> None:
        self._files = self._bytes = self._sent = 0

    def stored(self, path: str, size: int) -> None:
        self._files += 1
        self._bytes += size
        self._draw()

    def sent(self, objects: int, size: int) -> None:
        self._sent += size
        self._draw()

    def _draw(self) -> None:
        line = f"{self._files} files, {self._bytes / 2**20:.1f} MiB read, {self._sent / 2**20:.1f} MiB sent"
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ClientError(f"cannot read the public key: {error}") from error
