"""A Stratum 1 for a repository: ``cvmfs_server add-replica`` and ``snapshot`` on a machine of its own.

Its storage is served by this process, as its machine has no web server.
"""

from __future__ import annotations

import functools
import http.server
import threading
from dataclasses import replace
from typing import Any

from conformance.machines.machine import Finished, Machine
from conformance.target import Target


class Replica:
    """The replica of *target*'s repository, empty at first; a context manager.

    ``served`` is the same target, but with the replica as its web server.
    """

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine, self.fqrn = machine, target.fqrn
        handler = functools.partial(_Quiet, directory=str(machine.path("/srv")))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.served = replace(target, stratum0=f"http://127.0.0.1:{self._server.server_address[1]}/cvmfs")
        try:
            key = f"/srv/keys/{target.fqrn}.pub"
            machine.write(key, target.public_key)
            machine.run("cvmfs_server", "add-replica", "-o", "root", "-p", "-a", "-w", self.served.web, target.web, key)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Replica:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def snapshot(self) -> Finished:
        """``cvmfs_server snapshot``: fetch what is new."""
        return self.machine.run("cvmfs_server", "snapshot", self.fqrn, timeout=600)

    def checksum(self) -> str:
        """Of the replica's own reflog, in hex."""
        return self.machine.path(f"/var/spool/cvmfs/{self.fqrn}/reflog.chksum").read_text()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""
