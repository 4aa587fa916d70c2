from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfs_notify.sockets import activated, close_all, hand_down, inherited, listen


def test_every_address_has_the_same_port() -> None:
    opened = listen("localhost", 0)
    assert len({listener.getsockname()[1] for listener in opened}) == 1
    for listener in opened:
        socket.create_connection(listener.getsockname()[:2]).close()
    close_all({"x": opened})


def test_every_interface() -> None:
    opened = listen(None, 0)
    assert {listener.family for listener in opened} <= {socket.AF_INET, socket.AF_INET6}
    close_all({"x": opened})


def test_a_port_that_is_taken() -> None:
    opened = listen("127.0.0.1", 0)
    port = opened[0].getsockname()[1]
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
        listen("127.0.0.1", port)
    close_all({"x": opened})


def test_handing_down() -> None:
    sockets = {"a": listen("127.0.0.1", 0), "b": listen("127.0.0.1", 0)}
    variables, fds = hand_down(sockets)
    assert len(fds) == 2
    copies = {name: [str(os.dup(listener.fileno())) for listener in listeners] for name, listeners in sockets.items()}
    environment = dict.fromkeys(variables, f"a={copies['a'][0]},b={copies['b'][0]}")
    received = inherited(environment)
    assert environment == {}
    for name in sockets:
        assert received[name][0].getsockname() == sockets[name][0].getsockname()
        assert not received[name][0].get_inheritable()
    close_all(sockets)
    close_all(received)
    assert inherited({}) == {}


_ACTIVATED = """
import os, sys
from cvmfs_notify.sockets import activated
os.environ["LISTEN_PID"] = str(os.getpid())
ports = dict(gateway=int(sys.argv[1]), web=int(sys.argv[2]))
found = activated(os.environ, ports)
print({name: [s.getsockname()[1] for s in sockets] for name, sockets in found.items()})
"""


@pytest.mark.parametrize("names", ["", "gateway:web", "x.socket:x.socket"])
def test_socket_activation(tmp_path: Path, names: str) -> None:
    sockets = [*listen("127.0.0.1", 0), *listen("127.0.0.1", 0)]
    first, second = (listener.getsockname()[1] for listener in sockets)
    fds = [listener.fileno() for listener in sockets]
    steps = [f"os.dup2({fds[0]}, 100)", f"os.dup2({fds[1]}, 101)", "os.dup2(100, 3)", "os.dup2(101, 4)"]
    run = "os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
    script = "; ".join(["import os, sys", *steps, run])
    done = subprocess.run(
        [sys.executable, "-c", script, _ACTIVATED, str(first), str(second)],
        pass_fds=fds,
        env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": names},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str({"gateway": [first], "web": [second]}), done.stderr
    close_all({"x": sockets})


def test_meant_for_somebody_else() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "OTHER": "x"}
    assert activated(environment, {"gateway": 1}) == {}
    assert environment == {"OTHER": "x"}
