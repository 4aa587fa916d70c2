"""Record what the deployed publishers say to a gateway, for the conformance suite and :mod:`tests.traffic.test_replay`.

::

    python -m tests.traffic.record              # all sessions, into conformance/sessions
    python -m tests.traffic.record busy ingest  # these
    python -m tests.traffic.record --list

Needs what the end-to-end tests need: the CernVM-FS programs and root. Each session has a server and a repository of
its own. Publishers reach the gateway through the suite's recorder. A session is kept only if a mounted client then sees
the tree that the publishers published, and ``cvmfs_swissknife`` finds no fault.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from conformance.machines.machine import missing
from conformance.recorder import recording
from conformance.session import SHIPPED, Session
from tests.e2e.world import World
from tests.traffic.scenes import SCENES, Stage


def record(name: str) -> Session:
    """Play one session and check that it came to what it was to come to."""
    fqrn = f"{name}.example.org"
    with World() as world, tempfile.TemporaryDirectory() as folder:
        repository = world.mkfs(fqrn)
        world.serve()
        with recording(world.gateway, repository.target.key) as recorder:
            stage = Stage(world, repository, recorder, Path(folder))
            tree = SCENES[name](stage)
        world.verify(repository, tree)
        return Session(
            about=" ".join((SCENES[name].__doc__ or "").split()),
            recorded_with=world.client.machine.run("cvmfs2", "--version").output.strip(),
            fqrn=fqrn,
            revision=repository.revision,
            catalogs=sorted(path[1:] for path in world.nested_catalogs(repository)),
            tree=tree,
            exchanges=recorder.exchanges,
            initial=stage.initial,
            streams=recorder.told(),
        )


def main() -> int:
    """Record the sessions that the command line names."""
    parser = argparse.ArgumentParser(prog="tests.traffic.record", description="Record publishers' sessions.")
    parser.add_argument("names", nargs="*", metavar="SESSION", help="default: all")
    parser.add_argument("--list", action="store_true", help="say what there is")
    arguments = parser.parse_args()
    if arguments.list:
        for name, scene in SCENES.items():
            print(f"{name:24} {(scene.__doc__ or '').strip()}")
        return 0
    if unknown := set(arguments.names) - set(SCENES):
        parser.error(f"no such session: {', '.join(sorted(unknown))}")
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    for name in arguments.names or SCENES:
        path = SHIPPED / f"{name}.zip"
        session = record(name)
        session.save(path)
        print(f"{name:24} {len(session.exchanges):3} requests {path.stat().st_size / 1000:6.1f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
