"""Maintenance of a repository while it is in use: checks, garbage collection, copies, signatures, statistics.

::

    faults     check, check_head, check_catalog (and check_entry), check_objects  ->  repair
    garbage    mark, digests  ->  sweep, put together by gc; lastgc records when it last ran
    copies     snapshot (export while publishing goes on) to targets; pins protect what is copied from the collector
    import     adopt (take over a Stratum 0 made elsewhere) with its settings
    insight    census, growth, metainfo
    keys       resign

Everything that changes the head goes through :mod:`cvmfs_gw.engine.publish`.
"""
