"""The formats of a CernVM-FS repository, one module each, named by the field's term.

::

    keychain      keys and certificates: the two ways of signing
    signature     letters: signed text
    manifest      .cvmfspublished: the head of a repository
    whitelist     .cvmfswhitelist: whose manifests count
    chain         public master key -> whitelist -> certificate -> manifest, checked in one go
    objectpack    what a publisher sends: a header and the bytes of many objects
    database      what catalogs, tag databases and reflogs share: SQLite, schema, properties
    catalog       a directory tree; ``entry`` is a row of it
    history       the tag database
    reflog        every root that ever was, for the garbage collector

Pure functions or SQLite: no network, and time is an argument. Nothing is imported here.
"""
