"""The object store below a CernVM-FS repository: content hashes, compression, storage drivers and formats.

::

    hashes        ContentHash: the names of everything that is stored
    compression   the codecs that stored objects may have
    storage       the protocol of storage drivers ...
    local, memory ... and drivers: a directory (over ``staging``, ``folders`` and ``posix``), a dictionary for tests
    objects       content-addressed put and get over any storage
    formats       what the objects hold: one module per format, no network and no clock
    web           the HTTP server for /cvmfs/...
    chunking      where large files are cut
    errors        every exception that the package raises on purpose

All of it is synchronous and thread-safe, except ``web``, which runs in an event loop. Nothing is imported
here, so that a program that needs one format imports only that one.
"""
