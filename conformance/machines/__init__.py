"""The deployed CernVM-FS programs at work around a gateway, on machines made of namespaces.

::

    site ─┬▶ publisher ─▶ machine      cvmfs_server transaction, publish, abort, ingest; cvmfs_publish
          ├▶ client ────▶ machine      cvmfs2 with an empty cache; cvmfs_swissknife check and scrub
          └▶ replica ───▶ machine      cvmfs_server add-replica, snapshot
    content                            what publishers do to their directories in the scenarios
    snapshot, published                what a mount shows, and what the catalogs say, as trees that can be compared
    trees                              trees as plain dictionaries: the model
    history ─┬▶ changes, carrying      random histories of two publishers: changes of the model, carried out on disk,
             ├▶ archive                archives for ingest,
             └▶ revisions              and each revision held against the model

The programs are looked for on ``PATH``; :func:`conformance.machines.machine.missing` says why there can be no machines.
"""
