"""The formats of a CernVM-FS repository, one module each, named by the field's term.

::

    keychain      keys and certificates: the two ways of signing
    signature     letters: signed text
    manifest      .cvmfspublished: the head of a repository
    whitelist     .cvmfswhitelist: the trusted certificates
    chain         the chain of trust: public master key -> whitelist -> certificate -> manifest
    objectpack    what a publisher sends: a header and the bytes of many objects
    database      what catalogs, tag databases and reflogs share: SQLite, schema, properties
    pages         which rows of two versions of a database file can differ
    catalog       a directory tree; ``entry`` is a row of it
    history       the tag database
    reflog        every root catalog that ever was, for the garbage collector

Pure functions or SQLite: no network, and time is an argument. Nothing is imported here.
"""
