"""Ingestion: from sources of files to stored objects and a list of changes, shared by client and upload API.

::

    items                       the entries of a source, and how their content is read
    directory, archive, image   sources: a directory, a tar archive, a container image
      inputs, tarheader, ...    ... and parsers for archives and images
    contents                    turns file contents into objects: chunked, compressed, hashed, stored, on all cores
    gather                      reads a source to its end, storing its contents; nodes: the resulting tree
    overlay                     combines several operations (replace, add, delete) into one tree
    plan                        ... and turns it into changes of a catalog tree
    ownership, dirtab, marks    maps of owners, and nested catalogs according to .cvmfsdirtab
    errors                      the exceptions

``gather`` takes long and needs no repository; ``plan`` is quick and needs the head. This package knows neither leases
nor gateways nor HTTP.
"""
