"""The engine: everything that changes a repository. Synchronous, and the only writer of catalogs and manifests.

::

    diff       ->  changes  ->  transaction  on a  tree  ->  publish  ->  new head
    rowdiff        newfiles     rules             node       journal
    rowpaths       inspect                        links      tags
    rows                                          balance    repository

``commit`` is a publisher's commit through the gateway, ``merge`` its three-way part; ``edit`` is a change of the
server's own; ``create`` makes a repository.
"""
