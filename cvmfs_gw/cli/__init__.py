"""The command line: ``cvmfs-gw [--root DIR] COMMAND``, and ``cvmfs_gateway`` with the reference's flags.

One module for each command; each adds its parser and has one function that runs it. Exit codes: 0 done, 1 an error,
2 busy (somebody else holds the lease) or wrong usage, 3 a server cannot be reached, 4 a signature is wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from cvmfs_gw.cli.garbage import rare_collections
from cvmfs_gw.client.errors import ClientError
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.gateway.errors import GatewayError
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.errors import ObjectStoreError

MODULES: Final = {
    "mkfs": ("mkfs",),
    "serve": ("serve",),
    "publish": ("publish",),
    "read": ("ls", "cat", "get", "history"),
    "diff": ("diff",),
    "admin": ("leases", "cancel", "repos", "enable", "disable", "status"),
    "check": ("check",),
    "gc": ("gc",),
    "tag": ("tag", "rollback"),
    "resign": ("resign",),
    "repoinfo": ("repoinfo",),
    "inspect": ("inspect",),
    "backup": ("export", "import"),
    "doctor": ("doctor",),
    "token": ("token",),
    "demo": ("demo",),
}
"""Which module has which commands."""


def _wanted(words: Sequence[str]) -> Sequence[str]:
    """The modules to load: all, unless a word is a command. A server's libraries take longer to load than `ls` does."""
    return [module for module, commands in MODULES.items() if not set(commands).isdisjoint(words)] or list(MODULES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="cvmfs-gw", description="The server side of publishing to CernVM-FS.")
    parser.add_argument(
        "--root",
        metavar="DIR",
        default=os.environ.get("CVMFS_GW_ROOT", "/"),
        help="prefix of every system path (default: $CVMFS_GW_ROOT or /)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    with rare_collections():  # what is loaded stays
        for module in _wanted(sys.argv[1:] if argv is None else argv):
            importlib.import_module(f"{__name__}.{module}").add_parser(commands)
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it says each attempt; we say what came of them
    paths = SystemPaths(os.path.abspath(arguments.root))
    try:
        code: int = arguments.run(arguments, paths)
        sys.stdout.flush()
    except ClientError as error:
        print(f"cvmfs-gw: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # whoever read our output has seen enough, as in `cvmfs-gw ls ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (EngineError, GatewayError, ObjectStoreError, OSError) as error:
        print(f"cvmfs-gw: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code
