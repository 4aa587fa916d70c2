"""The deployed CernVM-FS programs at work around a gateway, on machines made of namespaces.

::

    site ─┬▶ publisher ─▶ machine      cvmfs_server transaction, publish, abort, ingest; cvmfs_publish
          ├▶ client ────▶ machine      cvmfs2 with an empty cache; cvmfs_swissknife check and scrub
          └▶ replica ───▶ machine      cvmfs_server add-replica, snapshot
    content, changes                   what publishers do to their directories, by hand and at random
    snapshot, published                what a mount shows, and what the catalogs say, as trees that can be compared
    history                            random histories of two publishers against a plain model

The programs are looked for on ``PATH``; :func:`conformance.machines.machine.missing` says why there can be no machines.
"""
