"""``cvmfs_gateway``: takes the flags and files of the reference's daemon, so that its service unit starts ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from cvmfs_gw.api.server import Listen, Worker, serve
from cvmfs_gw.api.supervisor import run_server
from cvmfs_gw.cli.serve import set_up_logging
from cvmfs_gw.gateway.config import parse_flags
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.paths import SystemPaths

IN_PROCESS: Final = "CVMFS_GW_IN_PROCESS"
"""If this is set in the environment, there is no parent process that keeps the sockets open."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon on every interface, as the reference does; returns the exit code."""
    paths = SystemPaths(os.path.abspath(os.environ.get("CVMFS_GW_ROOT", "/")))
    try:
        config = parse_flags(sys.argv[1:] if argv is None else argv, paths)
        set_up_logging(config)
        listen = Listen(None, config.port)

        async def start(worker: Worker | None) -> None:
            await serve(config, paths, os.environ, listen, worker=worker)

        return run_server(start, listen, os.environ, supervised=not os.environ.get(IN_PROCESS))
    except (ConfigError, OSError) as error:
        print(f"cvmfs_gateway: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
