"""The server side of publishing to CernVM-FS.

Layers, each of which knows only those below it::

    cli                 the command line
    api                 HTTP routes; the server process
    stratum0            the upload API without HTTP          client   the publisher, and reading over HTTP
    gateway             configuration, keys, leases, payloads, commits
    care                checks, garbage collection, copies   ingest   sources of files, as objects and changes
    engine              changes, catalog trees, merge, publish
    paths, serverconf   system paths, server.conf
    cvmfs_objstore      objects, formats, web server

``doctor`` looks for faults in the configuration and the machine. The arrows between layers are in ARCHITECTURE.md.
"""
