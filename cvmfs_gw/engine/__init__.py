"""The engine: everything that changes a repository. Synchronous, and the only writer of catalogs and manifests.

::

    sources, diff  ->  changes  ->  transaction  on a  tree  ->  publish  ->  new head
"""
