"""What a case has in its hands: the target, paths and leases of its own, and a publisher."""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from conformance.gateway import Gateway
from conformance.objects import StoredObject, stored
from conformance.outcomes import Failed, NotApplicable
from conformance.pack import Pack
from conformance.repository import Repository
from conformance.target import Target
from conformance.trace import Trace
from conformance.tree import Built, Tree
from conformance.wire import Key, Reply

T = TypeVar("T")
Change = Callable[[Tree], object]

_POLL_S: Final = 0.02
_RESTART_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that was granted."""

    revision: int
    reply: Reply
    built: Built


class Probe:
    """The target as one case sees it. Leases that a case leaves behind are dropped when it ends."""

    def __init__(self, target: Target, run: str, serial: Iterator[int], trace: Trace | None = None) -> None:
        self.target = target
        self.fqrn = target.fqrn
        self.trace = trace or Trace()
        self.gateway = Gateway(target.gateway, target.key, target.timeout, self.trace)
        self.repository = Repository(target.stratum0, target.fqrn, target.timeout, self.trace)
        self._run, self._serial = run, serial
        self._tokens: list[tuple[str, Key]] = []

    @classmethod
    def sequence(cls, target: Target) -> Iterator[Probe]:
        """A probe for each case."""
        run, serial = f"conf-{secrets.token_hex(4)}", itertools.count(1)
        while True:
            yield cls(target, run, serial)

    def close(self) -> None:
        """Drop what is left."""
        for token, key in self._tokens:
            with contextlib.suppress(OSError, Failed):
                self.gateway.drop(token, key=key)

    # --- names ----------------------------------------------------------------------------------------------------

    def name(self) -> str:
        """A name that nobody else uses, and that no other name begins with."""
        return f"{self._run}-{next(self._serial):06}"

    def path(self) -> str:
        """A path in the top directory that nobody else uses: ``/name``."""
        return f"/{self.name()}"

    def fresh(self, size: int) -> bytes:
        """Bytes that are in no object yet."""
        return random.Random(self.name()).randbytes(size)

    def new_object(self, size: int = 100, suffix: str = "") -> StoredObject:
        """An object that the store does not have."""
        return stored(self.fresh(size), suffix=suffix)

    def need(self, value: T | None, what: str) -> T:
        """*value*, which the target may not have been given."""
        if not value:
            raise NotApplicable(f"needs {what}")
        return value

    @property
    def admin(self) -> Key:
        return self.need(self.target.admin_key, "--admin-key")

    # --- leases ---------------------------------------------------------------------------------------------------

    def keep(self, reply: Reply, key: Key | None = None) -> Reply:
        """Have the lease that *reply* may have granted dropped at the end."""
        token = reply.json.get("session_token") if reply.status == 200 else None
        if isinstance(token, str):
            self._tokens.append((token, key or self.target.key))
        return reply

    def ask(self, path: str, *, key: Key | None = None, **fields: object) -> Reply:
        """Ask for a lease on *path* (``""`` or ``/a/b``) of the repository."""
        return self.keep(self.gateway.acquire(f"{self.fqrn}{path or '/'}", key=key, **fields), key)

    def acquire(self, path: str | None = None, *, key: Key | None = None, **fields: object) -> str:
        """The token of a lease that must be granted, on a path of its own if none is given."""
        return granted(self.ask(self.path() if path is None else path, key=key, **fields))

    def listing(self) -> dict[str, Any]:
        """All leases."""
        data = self.gateway.get("/leases").json.get("data")
        if not isinstance(data, dict):
            raise Failed(f"GET /leases has no data: {data!r}")
        return data

    # --- publishing -----------------------------------------------------------------------------------------------

    def build(self, change: Change, base: str | None = None, **how: Any) -> Built:
        """Make a revision from the present one, or from an older one as a publisher whose mount lags behind."""
        tree = self.repository.tree(base)
        change(tree)
        return tree.build(**how)

    def send(self, token: str, built: Built, *, key: Key | None = None) -> None:
        """Upload what was built."""
        accepted(self.gateway.payload(token, Pack.of(built.objects), key=key), "payload")

    def commit(self, token: str, built: Built, *, old: str | None = None, **fields: Any) -> Commit:
        """Commit what was sent; it must be granted."""
        reply = self.gateway.commit(token, old or built.base, built.root, **fields)
        revision = accepted(reply, "commit").get("final_revision")
        if not isinstance(revision, int):
            raise Failed(f"a commit without final_revision: {reply}")
        return Commit(revision, reply, built)

    def publish(self, path: str, change: Change, *, base: str | None = None, **fields: Any) -> Commit:
        """Lease *path*, send and commit a change."""
        built = self.build(change, base)
        token = self.acquire(path)
        self.send(token, built)
        done = self.commit(token, built, **fields)
        published = self.repository.manifest().revision
        if published < done.revision:
            raise Failed(f"final_revision is {done.revision}, but revision {published} is published")
        return done

    def plant(self, path: str, change: Change | None = None) -> None:
        """A directory at *path*, published under a lease on it, with what *change* puts there."""

        def make(tree: Tree) -> None:
            tree.make_directories(path)
            if change is not None:
                change(tree)

        self.publish(path, make)

    # --- others ---------------------------------------------------------------------------------------------------

    def with_key(self, key: Key) -> Probe:
        """The same for somebody else."""
        return Probe(replace(self.target, key=key), self._run, self._serial, self.trace)

    def together(self, *jobs: Callable[[], T]) -> list[T]:
        """Run all at once; returns their results in order, raises the first that one raised."""
        with ThreadPoolExecutor(len(jobs)) as pool:
            return [future.result() for future in [pool.submit(job) for job in jobs]]

    def until(self, what: str, condition: Callable[[], object], seconds: float | None = None) -> None:
        """Wait for *condition*; raises :exc:`Failed`, naming *what*, when that takes too long."""
        limit = seconds or self.target.timeout
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(f"waited {limit:.0f} s in vain: {what}")
            time.sleep(_POLL_S)

    def restart(self) -> None:
        """Restart the gateway."""
        command = self.need(self.target.restart_command, "--restart-command")
        restart(command)
        self.until("the gateway answers again", self.answers)

    def answers(self) -> bool:
        """Whether the gateway is there."""
        try:
            return self.gateway.call("GET", "/repos", timeout=5.0).status == 200
        except OSError:
            return False


def restart(command: str) -> None:
    """Run the shell command that was given for it; raises :exc:`Failed`."""
    # To a file: a gateway that it starts in the background keeps a pipe open.
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(["sh", "-c", command], stdout=said, stderr=said, timeout=_RESTART_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"the restart command does not work: {error}") from error
        if done.returncode:
            said.seek(0)
            words = said.read().decode(errors="replace").strip()
            raise Failed(f"the restart command failed: {words[-300:]}")


def granted(reply: Reply) -> str:
    """The token of a lease; raises :exc:`Failed`."""
    token = accepted(reply, "lease").get("session_token")
    if not isinstance(token, str) or not token:
        raise Failed(f"a lease without session_token: {reply}")
    return token


def accepted(reply: Reply, what: str) -> Mapping[str, Any]:
    """A reply that must say ok; raises :exc:`Failed`."""
    if reply.status != 200 or reply.json.get("status") != "ok":
        raise Failed(f"{what} refused: {reply}")
    return reply.json


def refused(reply: Reply, what: str, reason: str = "") -> Mapping[str, Any]:
    """A reply that must not say ok, with HTTP 200 as publishers expect; raises :exc:`Failed`.

    *reason* is what the reply's own must be or begin with.
    """
    if reply.status != 200:
        raise Failed(f"{what}: HTTP {reply.status} where publishers expect 200 with a status: {reply}")
    if reply.json.get("status") == "ok":
        raise Failed(f"{what} was accepted: {reply}")
    if reason and not str(reply.json.get("reason", "")).startswith(reason):
        raise Failed(f"{what}: the reason is {reply.json.get('reason')!r}, not {reason!r}")
    return reply.json


def turned_down(reply: Reply, what: str) -> None:
    """A reply to malformed input, which may be HTTP 4xx or a status other than ok; raises :exc:`Failed`."""
    if 400 <= reply.status < 600:
        return
    refused(reply, what)
