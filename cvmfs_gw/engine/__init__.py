"""The engine: everything that changes a repository. Synchronous; the only writer of catalogs and manifests.

::

    diff       ->  changes  ->  transaction  on a  tree  ->  publish  ->  new head
    rowdiff        newfiles     rules             node       journal
    rowpaths       inspect                        links      tags
    rows                                          balance    repository

``commit`` is a publisher's commit through the gateway, ``merge`` its three-way merge; ``edit`` publishes changes by the
server itself; ``create`` makes a repository.
"""
