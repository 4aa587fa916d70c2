"""Conformance: what a CernVM-FS gateway, its notification server and its Stratum 0 do, seen from outside.

::

    __main__ ─▶ cli ─┬▶ runner ─▶ cases/* ─▶ probe ─▶ publisher ─▶ catalog, pack
                     ├▶ report/*                 └──▶ gateway, repository, stream ─▶ wire
                     ├▶ bench/*
                     └▶ recorder, replay, chaos

The suite speaks HTTP and nothing else, and has its own small implementation of the wire and of the formats, so that it
says the same of every gateway. See ``README.md`` in this folder.
"""
