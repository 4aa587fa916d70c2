"""``cvmfs_gateway``: takes the flags and files of the reference's daemon, so that its service unit starts ours."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from cvmfs_gw.api.server import Listen, serve
from cvmfs_gw.cli.serve import set_up_logging
from cvmfs_gw.gateway.config import parse_flags
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.paths import SystemPaths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon on every interface, as the reference does; returns the exit code."""
    paths = SystemPaths(os.path.abspath(os.environ.get("CVMFS_GW_ROOT", "/")))
    try:
        config = parse_flags(sys.argv[1:] if argv is None else argv, paths)
        set_up_logging(config)
        asyncio.run(serve(config, paths, os.environ, Listen(None, config.port)))
    except (ConfigError, OSError) as error:
        print(f"cvmfs_gateway: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
