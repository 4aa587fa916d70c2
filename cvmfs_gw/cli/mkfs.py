"""``cvmfs-gw mkfs FQRN``: make a repository."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.names import check_fqrn
from cvmfs_gw.engine.publish import DEFAULT_TTL
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.hashes import Algorithm

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("mkfs", help="make a repository", description=__doc__)
    parser.add_argument("fqrn", help="its fully qualified name, as in software.example.org")
    parser.add_argument(
        "-w",
        "--stratum0",
        metavar="URL",
        help="where publishers and clients read it (default: http://localhost:8080/cvmfs/FQRN; on S3 below the bucket)",
    )
    parser.add_argument("--s3", default="", metavar="FILE", help="the s3.conf of a bucket to put it into")
    parser.add_argument(
        "-o", "--owner", default="", metavar="USER", help="owner of the repository, its storage and keys (default: you)"
    )
    parser.add_argument("-a", "--hash-algorithm", default="sha1", choices=[a.config_name for a in Algorithm])
    parser.add_argument("-Z", "--compression", default="default", choices=("default", "zlib", "none"))
    parser.add_argument("-v", "--volatile", action="store_true", help="clients keep its files with low priority")
    parser.add_argument("-z", "--garbage-collection", action="store_true", help="unreferenced objects may be collected")
    parser.add_argument("-g", "--no-auto-tags", action="store_true", help="no automatic tag for each publish")
    parser.add_argument("-G", "--auto-tag-timespan", default="", metavar="WHEN", help='as in "4 weeks ago"')
    parser.add_argument(
        "-k", "--keys", default="", metavar="DIR", help="import FQRN.{masterkey,pub,key,crt,gw} from here"
    )
    parser.add_argument(
        "--ttl", type=int, default=DEFAULT_TTL, metavar="SECONDS", help="how often clients look for a new revision"
    )
    parser.add_argument("--no-replicas", action="store_true", help="do not allow Stratum 1 servers to copy it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Make the repository and say where everything is."""
    fqrn = check_fqrn(arguments.fqrn)
    options = RepositoryOptions(
        stratum0=arguments.stratum0 or "",
        s3=arguments.s3,
        owner=arguments.owner,
        algorithm=Algorithm.from_config(arguments.hash_algorithm),
        compression=arguments.compression,
        volatile=arguments.volatile,
        garbage_collection=arguments.garbage_collection,
        auto_tag=not arguments.no_auto_tags,
        auto_tag_timespan=arguments.auto_tag_timespan,
        ttl=arguments.ttl,
        keys=arguments.keys,
        replicable=not arguments.no_replicas,
    )
    repository = create_repository(fqrn, paths, {}, options, time.time())
    print(f"Made {fqrn}:")
    configuration = repository.configuration()
    print(f"  storage      {configuration.upstream().location}")
    print(f"  URL          {configuration.stratum0}")
    print(f"  keys         {paths.key_file(fqrn, '{masterkey,pub,key,crt,gw}')}")
    print(f"  settings     {paths.server_conf(fqrn)}")
    print(f"Publishers need {fqrn}.pub, .crt and .gw; clients .pub. Keep a copy of .masterkey in a safe place.")
    return 0
