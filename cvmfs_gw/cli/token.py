"""``cvmfs-gw token``: who may upload over HTTP, and where. A token that is made enables uploads for its repository.

A running server takes changes up within seconds. The token itself is printed once and kept nowhere.
"""

from __future__ import annotations

import argparse
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.engine.locking import editing
from cvmfs_gw.engine.names import check_fqrn
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.stratum0.settings import RepositorySettings, UploadSettings, new_token

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("token", help="manage who may upload over HTTP", description=__doc__)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a token and print it")
    create.add_argument("target", metavar="FQRN[/PATH]", help="where it may upload")
    create.add_argument("--id", default="", help="its name in logs (default: made up)")
    create.add_argument("--read-only", action="store_true", help="for listing and downloading")
    create.set_defaults(run=run_create)
    show = actions.add_parser("list", help="list the tokens")
    show.set_defaults(run=run_list)
    revoke = actions.add_parser("revoke", help="revoke a token")
    revoke.add_argument("id")
    revoke.set_defaults(run=run_revoke)


def run_create(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Add a token."""
    fqrn, _, path = arguments.target.partition("/")
    scope = LeasePath.parse(f"{check_fqrn(fqrn)}/{path.strip('/')}")
    token_id = arguments.id or f"t{secrets.token_hex(4)}"
    try:
        text, token = new_token(token_id, scope, read_only=arguments.read_only)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    with editing(paths.upload_config):
        settings = UploadSettings.load(paths.upload_config)
        if token_id in settings.tokens:
            raise ConfigurationError(f"there is a token {token_id!r} already")
        repositories = {fqrn: RepositorySettings(), **settings.repositories}
        tokens = {**settings.tokens, token_id: token}
        changed = replace(settings, repositories=repositories, tokens=tokens)
        changed.save(paths.upload_config, like=paths.access_config)
    print(text)
    return 0


def run_list(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Say who may do what."""
    for token in UploadSettings.load(paths.upload_config).tokens.values():
        print(f"{token.id}  {token.scope}  {'read' if token.read_only else 'read and change'}")
    return 0


def run_revoke(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Remove a token."""
    with editing(paths.upload_config):
        settings = UploadSettings.load(paths.upload_config)
        if arguments.id not in settings.tokens:
            raise ConfigurationError(f"there is no token {arguments.id!r}")
        tokens = {name: token for name, token in settings.tokens.items() if name != arguments.id}
        replace(settings, tokens=tokens).save(paths.upload_config)
    return 0
