"""Conformance: what a CernVM-FS gateway, its notification server and its Stratum 0 do, seen from outside.

::

    __main__ ─▶ cli ─┬▶ runner ─▶ cases/* ─┬▶ probe ─▶ tree, catalog, pack
                     ├▶ report/*           │     └───▶ gateway, repository, stream ─▶ wire
                     ├▶ bench/*            └▶ machines/*, the deployed programs where they are installed
                     └▶ recorder, replay, chaos

The suite has its own small implementation of the wire and of the formats, so that it says the same of every gateway.
See ``README.md`` in this folder.
"""
