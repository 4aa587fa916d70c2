"""Caring for a repository while it is in use: checks, garbage, copies, signatures, what is in it.

::

    faults     check, check_head, check_catalog (and check_entry), check_objects  ->  repair
    garbage    mark, digests  ->  sweep, put together by gc; lastgc knows when it was done last
    copies     snapshot (a whole copy while publishing goes on) to targets; pins keep what is copied from the collector
    moves      adopt (take over a Stratum 0 made elsewhere) with its settings
    insight    census, growth, metainfo
    keys       resign

Everything that changes the head goes through :mod:`cvmfs_gw.engine.publish`.
"""
