"""Random histories of two of the deployed publishers, on the whole of a repository.

``CVMFS_GW_TRANSACTIONS`` is how many revisions are published, ``CVMFS_GW_SEED`` repeats a history, and
``CVMFS_GW_MOUNT_EVERY`` how many publishes there are from one client mount to the next.
"""

from __future__ import annotations

import os

from conformance.machines.history import RandomHistory
from conformance.machines.site import Site
from tests.e2e.world import World

TRANSACTIONS = int(os.environ.get("CVMFS_GW_TRANSACTIONS", "15"))
SEED = int(os.environ.get("CVMFS_GW_SEED", "6"))
MOUNT_EVERY = int(os.environ.get("CVMFS_GW_MOUNT_EVERY", "15"))


def test_random_history(world: World) -> None:
    repository = world.mkfs("random.example.org")
    world.serve()
    with Site(repository.target) as site:
        history = RandomHistory(site, SEED, mount_every=MOUNT_EVERY, check=lambda: world.check(repository))
        try:
            history.run(TRANSACTIONS)
        finally:
            print(f"seed {SEED}, {history}")
