"""Listening sockets: opened here, or inherited from a parent or from systemd.

A deployed subscriber whose connection is refused a few times gives up for good, so listening sockets must outlive the
process that accepts from them: as long as they are open, connections wait in the backlog.

Source: systemd's protocol for socket activation, sd_listen_fds(3): ``LISTEN_PID``, ``LISTEN_FDS``, ``LISTEN_FDNAMES``.
Our own supervisor sets ``CVMFS_SOCKETS=name=fd,...`` instead, as it does not know the worker's process id in advance.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import ExitStack
from typing import Final

BACKLOG: Final = 4096
"""The maximum number of connections waiting to be accepted; the kernel may have a lower limit."""
INHERITED: Final = "CVMFS_SOCKETS"
_FIRST_FD: Final = 3
_MANY_FILES: Final = 1 << 20

Sockets = dict[str, list[socket.socket]]
"""Listening sockets by their purpose."""


def listen(host: str | None, port: int) -> list[socket.socket]:
    """Listen on every address of *host* (None: all interfaces); raises ``OSError``.

    Port 0 chooses a free one, the same for all addresses.
    """
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    with ExitStack() as undo:
        opened: list[socket.socket] = []
        for family, address in addresses:
            try:
                listener = _listen(family, (address[0], port, *address[2:]))
            except OSError as error:
                # with IPv6 disabled, names may still resolve to IPv6 addresses
                if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and len(addresses) > 1:
                    continue
                raise OSError(error.errno, f"cannot listen on {address[0]}:{port}: {error.strerror}") from error
            undo.callback(listener.close)
            opened.append(listener)
            port = port or listener.getsockname()[1]
        if not opened:
            raise OSError(errno.EADDRNOTAVAIL, f"no address to listen on: {host}")
        undo.pop_all()
    return opened


def _listen(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def activated(environment: MutableMapping[str, str], ports: Mapping[str, int]) -> Sockets:
    """The sockets passed by systemd; removes the variables from *environment*.

    A socket's purpose is its name if *ports* (purpose -> port) has it, else the purpose with its port, else the first
    one in *ports*.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    result: Sockets = {}
    for index in range(int(count)):
        listener = _adopt(_FIRST_FD + index)
        name = names[index] if index < len(names) else ""
        if name not in ports:
            port = listener.getsockname()[1] if listener.family in (socket.AF_INET, socket.AF_INET6) else None
            name = next((known for known, wanted in ports.items() if wanted == port), next(iter(ports)))
        result.setdefault(name, []).append(listener)
    return result


def inherited(environment: MutableMapping[str, str]) -> Sockets:
    """The sockets passed by the supervisor, see :func:`hand_down`; removes the variable from *environment*."""
    result: Sockets = {}
    for item in environment.pop(INHERITED, "").split(","):
        name, _, fd = item.rpartition("=")
        if name:
            result.setdefault(name, []).append(_adopt(int(fd)))
    return result


def hand_down(sockets: Mapping[str, Iterable[socket.socket]]) -> tuple[dict[str, str], tuple[int, ...]]:
    """The environment variables and file descriptors that pass *sockets* to a worker."""
    pairs = [(name, listener.fileno()) for name, listeners in sockets.items() for listener in listeners]
    return {INHERITED: ",".join(f"{name}={fd}" for name, fd in pairs)}, tuple(fd for _, fd in pairs)


def close_all(sockets: Mapping[str, Iterable[socket.socket]]) -> None:
    for listeners in sockets.values():
        for listener in listeners:
            listener.close()


def raise_file_limit() -> int:
    """Raise this process's limit of open files to the hard limit; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return _files(soft)
    return _files(hard)


def _files(limit: int) -> int:
    return _MANY_FILES if limit == resource.RLIM_INFINITY else limit


def _adopt(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    return listener
