"""Runs a server under a supervisor, which keeps its listening sockets open, or in this process.

::

    systemd ──(sockets)──▶ parent ──(sockets)──▶ worker, the same program again
    systemd ──(sockets)──▶ server in this process
                           server in this process, with sockets of its own

The parent is :class:`cvmfs_notify.supervisor.Supervisor`: no subscriber is lost while the worker is restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping
from contextlib import closing

from cvmfs_gw.api.server import GATEWAY, WEB, Listen, Worker
from cvmfs_notify import sockets
from cvmfs_notify.supervisor import Parent, Supervisor, is_worker, this_program


def run_server(
    start: Callable[[Worker | None], Coroutine[None, None, None]],
    listen: Listen,
    environment: MutableMapping[str, str],
    *,
    supervised: bool = True,
) -> int:
    """Run *start* to its end, in a worker if *supervised*; returns the exit code.

    Removes the variables that describe inherited sockets from *environment*. Raises ``OSError`` if it cannot listen,
    and what *start* raises.
    """
    if is_worker(environment):
        with closing(Parent(environment)) as parent:
            asyncio.run(start(Worker(sockets.inherited(environment), parent)))
        return 0
    wanted = {GATEWAY: listen.port}
    if listen.web_port is not None:
        wanted[WEB] = listen.web_port
    passed = sockets.activated(environment, wanted)
    if not supervised:
        asyncio.run(start(Worker(passed)))
        return 0
    for name, port in wanted.items():
        if name not in passed:
            passed[name] = sockets.listen(listen.host, port)
    return Supervisor(this_program(), passed, environment).run()
