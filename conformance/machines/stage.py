"""What a case with machines begins with."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from conformance.machines.machine import missing
from conformance.machines.site import Site
from conformance.outcomes import Failed, NotApplicable
from conformance.probe import Probe

_missing = functools.cache(missing)


@contextlib.contextmanager
def machines(probe: Probe) -> Iterator[Site]:
    """Machines around a new directory of the target's repository; raises :exc:`NotApplicable` where there can be none.

    The programs' checker looks at the whole repository, so it must find nothing before; where the storage is not clean
    before, as a crash may leave it, it is not looked at afterwards.
    """
    if why := _missing():
        raise NotApplicable(why)
    probe.need(probe.target.public_key, "--public-key")
    top = probe.path()
    probe.plant(top)
    with Site(probe.target, top[1:]) as site:
        try:
            site.client.check(probe.target)
        except Failed as failure:
            lines = str(failure).splitlines()
            first = next((line for line in lines if "error" in line.lower()), lines[-1])
            raise NotApplicable(f"the repository has faults from before: {first}") from None
        site.may_scrub = site.is_scrubbed()
        yield site
