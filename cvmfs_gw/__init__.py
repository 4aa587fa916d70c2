"""The server side of publishing to CernVM-FS.

Layers, each of which knows only those below it::

    cli       the command line
    api       HTTP routes; the running process
    gateway   configuration, keys, leases, payloads: who may do what when
    engine    changes, catalog trees, merge, publish: what a repository becomes
    paths, serverconf        where things lie, what server.conf says
    cvmfs_objstore           objects, formats, web server

and ``client``, the publisher, which uses the engine on its own side of the wire.
"""
