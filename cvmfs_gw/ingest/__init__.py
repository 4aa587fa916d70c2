"""From sources of files to stored objects and a list of changes: what every way of publishing has in common.

::

    items                       one thing that a source holds, and how its content is read
    directory, archive, image   sources: a directory, a tar archive, a container image
      inputs, tarheader, ...    ... and what archives and images are read with
    contents                    file contents become objects: chunked, compressed, hashed, stored, on all cores
    gather                      a source read to its end, its contents stored; nodes: the tree that it becomes
    overlay                     what several operations (replace, add, delete) amount to
    plan                        ... as changes of one catalog tree
    ownership, dirtab, marks    owners that are mapped, and nested catalogs that .cvmfsdirtab asks for
    errors                      everything that is raised on purpose

``gather`` is the long part and needs no repository; ``plan`` is quick and needs the head. Leases, gateways and HTTP are
not known here.
"""
