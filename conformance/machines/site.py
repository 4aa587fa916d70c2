"""All machines around one repository of a target."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import ExitStack

from conformance.gateway import Gateway
from conformance.machines.client import STORE, Client
from conformance.machines.machine import Machine
from conformance.machines.publisher import Publisher
from conformance.machines.replica import Replica
from conformance.machines.snapshot import Tree, differences
from conformance.outcomes import Failed
from conformance.repository import Repository
from conformance.target import Target

_SHOWN = 40


class Site:
    """Publishers, a client and checks of what is at and below *base* (``a/b``); a context manager.

    Trees are below the base, too. Checks are of the whole repository.
    """

    def __init__(self, target: Target, base: str = "") -> None:
        self.target, self.base = target, base
        self.repository = Repository(target.stratum0, target.fqrn, target.timeout)
        self.may_scrub = target.store is not None
        self._stack = ExitStack()
        self._client: Client | None = None
        self._publishers: list[Publisher] = []

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        # Nobody will end the transactions that are still open.
        gateway = Gateway(self.target.gateway, self.target.key, self.target.timeout)
        for publisher in self._publishers:
            with contextlib.suppress(OSError, Failed):
                gateway.drop(publisher.token_file.read_text().strip())
        self._stack.close()

    def machine(self, name: str, binds: Mapping[str, str] | None = None) -> Machine:
        """A machine that lives as long as the site."""
        return self._stack.enter_context(Machine(name, binds))

    def publisher(self, name: str, *options: str, settings: str = "") -> Publisher:
        """A machine that publishes; *options* are those of ``cvmfs_server mkfs``."""
        made = Publisher(self.machine(name), self.target, options, settings, self.base)
        self._publishers.append(made)
        return made

    def replica(self) -> Replica:
        """A machine that is a Stratum 1."""
        return self._stack.enter_context(Replica(self.machine("replica"), self.target))

    @property
    def client(self) -> Client:
        """The machine in which the repository is mounted and checked."""
        if self._client is None:
            binds = {STORE: str(self.target.store)} if self.target.store else {}
            self._client = Client(self.machine("client", binds))
        return self._client

    @property
    def revision(self) -> int:
        return self.repository.manifest().revision

    def check(self) -> None:
        """The programs find nothing wrong with catalogs and objects; raises :exc:`Failed`.

        This is what ``cvmfs_server check -i`` does; objects are read only where the target's storage is at hand.
        """
        self.client.check(self.target)
        if self.may_scrub:
            self.client.scrub()

    def is_scrubbed(self) -> bool:
        """Whether the storage is at hand, and holds nothing but objects."""
        if self.target.store is None:
            return False
        try:
            self.client.scrub()
        except Failed:
            return False
        return True

    def verify(self, expected: Tree, *, nanoseconds: bool = False) -> None:
        """The repository is whole, and a new client sees exactly *expected*; raises :exc:`Failed`."""
        self.check()
        self.compare(expected, nanoseconds=nanoseconds)

    def compare(self, expected: Tree, *, nanoseconds: bool = False) -> None:
        """The second half of :meth:`verify`."""
        same(expected, self.client.mounted(self.target, self.base), "a client sees", nanoseconds=nanoseconds)

    def nested_catalogs(self) -> set[str]:
        """Where nested catalogs begin, as the programs tell: ``a/b``."""
        top = f"/{self.base}/" if self.base else "/"
        return {path[len(top) :] for path in self.client.nested_catalogs(self.target) if path.startswith(top)}


def same(expected: Tree, seen: Tree, who: str, *, nanoseconds: bool = True) -> None:
    """Raise :exc:`Failed` with all differences, as what *who* finds."""
    wrong = differences(expected, seen, nanoseconds=nanoseconds)
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise Failed("\n".join([f"{who} something else than what was published:", *wrong[:_SHOWN], *more]))
