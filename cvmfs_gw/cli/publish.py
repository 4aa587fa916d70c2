"""``cvmfs-gw publish FQRN[/SUBPATH] [SOURCE]``: change a part of a repository, through any gateway, as any user.

SOURCE is a directory, a tar archive (plain or compressed, - for standard input), or image:PATH for a container image:
an archive, or an OCI layout in a directory. What is at SUBPATH becomes equal to it, or with --add, it is put over what
is there. Further operations, in the order in which they are given, become visible together with it: --replace, --add-at
and --delete with paths below SUBPATH.

Exit codes: 0 published, or nothing to be changed; 1 refused, or an error; 2 the path is busy; 3 a server cannot be
reached; 4 a signature is wrong; 5 nobody says whether the commit was done; 130 interrupted (the lease is given back).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cvmfs_gw.cli.garbage import rare_collections
from cvmfs_gw.cli.progress import PublishEvents, PublishLine, summary
from cvmfs_gw.cli.text import change_as_json
from cvmfs_gw.cli.trust import add_trust, public_keys
from cvmfs_gw.client.errors import ClientError
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.client.location import repository_path
from cvmfs_gw.client.publish import preview, publish
from cvmfs_gw.client.request import Action, Destination, Progress, PublishOptions, PublishReport, PublishRequest, Step
from cvmfs_gw.client.sources import open_source
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.ingest.errors import IngestError
from cvmfs_gw.ingest.gather import Devices, GatherOptions
from cvmfs_gw.ingest.ownership import SAME, IdMap
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.text import printable
from cvmfs_objstore.chunksizes import DEFAULT_SIZES, ChunkSizes
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.errors import FormatError

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


class _Operation(argparse.Action):
    """Keeps operations of several kinds in the order in which they are given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        words = [values] if isinstance(values, str) else list(values or ())
        namespace.operations = [*(namespace.operations or ()), (self.const, *words)]


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("publish", help="publish a directory, an archive or an image", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("target", metavar="FQRN[/SUBPATH]", help="where to publish")
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="what to publish")
    parser.add_argument("--add", action="store_true", help="put SOURCE over what is there, and remove nothing")
    for name, words, text in (
        ("--replace", ("SOURCE", "PATH"), "let PATH become equal to SOURCE"),
        ("--add-at", ("SOURCE", "PATH"), "put SOURCE over what is at PATH"),
        ("--delete", ("PATH",), "remove PATH with all that is below"),
    ):
        parser.add_argument(
            name, nargs=len(words), metavar=words, action=_Operation, dest="operations", const=name, help=text
        )
    _add_servers(parser)
    _add_contents(parser)
    parser.add_argument("--tag", default="", metavar="NAME", help="name the new revision")
    parser.add_argument("--description", default="", metavar="TEXT", help="of the tag")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, path by path, and do nothing")
    parser.add_argument("--json", action="store_true", help="JSON lines: what goes on, and what came of it")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on the terminal")
    parser.set_defaults(run=run, wrong=parser.error)


def _add_servers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gateway", default="http://localhost:4929/api/v1", metavar="URL", help="default: %(default)s")
    parser.add_argument("--stratum0", metavar="URL", help="default: http://localhost:8080/cvmfs/FQRN")
    parser.add_argument("--key", metavar="FILE", help="gateway key (default: FQRN.gw in the keys folder)")
    add_trust(parser)
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="how long a busy path is waited for")


def _add_contents(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("contents", "the defaults are those of deployed publishers")
    group.add_argument("--compression", default="default", choices=("default", "zlib", "none"))
    group.add_argument("--fast", action="store_true", help="zlib several times faster; other object names than others")
    default = DEFAULT_SIZES
    group.add_argument("--chunks", metavar="MIN,AVG,MAX", type=_chunks, default=default, help="bytes of chunks, or none"
                       f" (default: {default.smallest},{default.average},{default.largest})")  # fmt: skip
    group.add_argument("--uid-map", type=_map, default=SAME, metavar="FILE", help="lines of FROM TO; * is the rest")
    group.add_argument("--gid-map", type=_map, default=SAME, metavar="FILE")
    group.add_argument("--owner", type=_owner, metavar="UID:GID", help="owner of everything, whatever the source says")
    group.add_argument("--devices", type=Devices, choices=list(Devices), default=Devices.KEEP,
                       metavar="keep|skip|refuse", help="what becomes of device files (default: keep)")  # fmt: skip
    group.add_argument("--platform", metavar="OS/ARCH", help="which of several images, as linux/amd64")
    group.add_argument("--image-tag", metavar="NAME", help="which of several images, as NAME:TAG")
    group.add_argument("--work-folder", metavar="DIR", help="where new objects are kept until they are sent")
    group.add_argument("--threads", type=int, metavar="N", help="default: one for each core")


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Publish and say what came of it."""
    if arguments.source is None and not arguments.operations:
        arguments.wrong("nothing to publish: give a SOURCE, or --replace, --add-at or --delete")
    request = _request(arguments, paths)
    if arguments.dry_run:
        return _preview(arguments, request)
    progress = PublishEvents() if arguments.json else _line(arguments)
    with _termination(), rare_collections():  # what it makes by the 100,000 lives until its end
        try:
            report = publish(request, progress)
        except (ClientError, KeyboardInterrupt, OSError) as error:
            progress.end()
            _say_failure(progress, error)
            raise
        progress.end()
    if isinstance(progress, PublishEvents):
        progress.say("published" if report.changed else "unchanged", **_as_json(report))
    else:
        print(_as_text(request.destination.fqrn, report))
    for name in report.missing:
        print(f"cvmfs-gw: published, but not in the storage: {name}", file=sys.stderr)
    return 1 if report.missing else 0


def _say_failure(progress: Progress, error: BaseException) -> None:
    """The last line, where the program does not say it itself."""
    interrupted = isinstance(error, KeyboardInterrupt)
    code = 130 if interrupted else error.exit_code if isinstance(error, ClientError) else 1
    if isinstance(progress, PublishEvents):
        progress.say("failed", reason="interrupted" if interrupted else printable(str(error)), exit_code=code)
    elif interrupted:
        print("cvmfs-gw: interrupted", file=sys.stderr)


def _request(arguments: argparse.Namespace, paths: SystemPaths) -> PublishRequest:
    fqrn, _, subpath = arguments.target.partition("/")
    top = LeasePath.parse(f"{fqrn}/{subpath.strip('/')}").path
    stratum0 = arguments.stratum0 or f"http://localhost:8080/cvmfs/{fqrn}"
    steps: list[Step] = []
    if arguments.source is not None:
        action = Action.ADD if arguments.add else Action.REPLACE
        steps.append(Step(top, open_source(arguments.source, arguments.platform, arguments.image_tag), action))
    for kind, *words in arguments.operations or ():
        target = top + repository_path(words[-1])
        if kind == "--delete":
            steps.append(Step(target))
        else:
            action = Action.REPLACE if kind == "--replace" else Action.ADD
            steps.append(Step(target, open_source(words[0], arguments.platform, arguments.image_tag), action))
    destination = Destination(
        fqrn,
        arguments.gateway,
        stratum0,
        read_key_file(arguments.key or paths.key_file(fqrn, "gw")),
        public_keys(fqrn, stratum0, arguments, paths),
    )
    uids, gids = arguments.owner or (arguments.uid_map, arguments.gid_map)
    options = PublishOptions(
        compression=Compression.from_config(arguments.compression),
        chunks=arguments.chunks,
        fast=arguments.fast,
        uids=uids,
        gids=gids,
        gather=GatherOptions(devices=arguments.devices),
        wait_s=arguments.wait,
        work_folder=arguments.work_folder,
        threads=arguments.threads,
    )
    return PublishRequest(destination, tuple(steps), arguments.tag, arguments.description, options)


def _preview(arguments: argparse.Namespace, request: PublishRequest) -> int:
    progress = _line(arguments)
    count = 0
    for change in preview(request, progress):
        if not count:
            progress.end()
        count += 1
        print(json.dumps(change_as_json(change)) if arguments.json else printable(str(change)))
    if not arguments.json:
        print(f"{count} changes; nothing was published")
    return 0


def _line(arguments: argparse.Namespace) -> Progress:
    """The line on the terminal, if there is one."""
    return Progress() if arguments.quiet or arguments.json or not sys.stderr.isatty() else PublishLine()


def _as_json(report: PublishReport) -> dict[str, Any]:
    counts = {name: value for name, value in asdict(report.counts).items() if value} if report.counts else {}
    return {
        "revision": report.revision,
        "tag": printable(report.tag),
        "objects": report.objects,
        "sent": report.sent,
        "files_read": report.files,
        "bytes_read": report.bytes,
        "files_unchanged": report.unchanged,
        "missing": list(report.missing),
        "changes": counts,
    }


def _as_text(fqrn: str, report: PublishReport) -> str:
    if not report.changed:
        return f"{fqrn}: nothing has changed, so revision {report.revision} stays"
    changes = f"; {summary(report.counts)}" if report.counts else ""
    tag = f", tag {printable(report.tag)}" if report.tag else ""
    return f"{fqrn}: revision {report.revision}{tag}, {report.objects} new objects, {report.sent:,} bytes sent{changes}"


@contextmanager
def _termination() -> Iterator[None]:
    """While this lasts, SIGTERM ends things as Ctrl-C does, so that the lease is given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _chunks(text: str) -> ChunkSizes | None:
    if text == "none":
        return None
    try:
        return ChunkSizes(*map(int, text.split(",")))
    except (TypeError, ValueError, FormatError) as error:
        raise argparse.ArgumentTypeError(f"not three sizes in bytes: {text!r} ({error})") from error


def _owner(text: str) -> tuple[IdMap, IdMap]:
    uid, _, gid = text.partition(":")
    if not (uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit()):
        raise argparse.ArgumentTypeError(f"not UID:GID in numbers: {text!r}")
    return IdMap.to(int(uid)), IdMap.to(int(gid))


def _map(path: str) -> IdMap:
    try:
        return IdMap.load(path)
    except IngestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
