"""Publishing to a repository through a gateway, and reading it over HTTP, as a library.

Works against this project's gateway and the reference's; synchronous, and needs no privileges. To publish::

    from cvmfs_gw.client.keys import read_key_file
    from cvmfs_gw.client.publish import publish
    from cvmfs_gw.client.request import Destination, PublishRequest, Step
    from cvmfs_gw.client.sources import open_source

    fqrn, host = "software.example.org", "http://stratum0.example.org"
    pub = open("software.example.org.pub", "rb").read()
    key = read_key_file("software.example.org.gw")
    to = Destination(fqrn, f"{host}:4929/api/v1", f"{host}:8080/cvmfs/{fqrn}", key, pub)
    steps = (Step("/tools/1.2", open_source("./build")), Step("/tools/1.0"))  # replace one, remove the other
    print(publish(PublishRequest(to, steps, tag="tools-1.2")).revision)

To read::

    from cvmfs_gw.client.reader import RepositoryReader

    with RepositoryReader(fqrn, f"{host}:8080/cvmfs/{fqrn}", pub) as repository:
        repository.select("tools-1.2")
        print([entry.name for entry in repository.entries("/tools")])
        data = repository.read("/tools/1.2/bin/tool")

::

    publish, request, sources     publishing: the steps, the request and its result, the names of sources
    session, gateway              a lease and its connections; the REST API
    spool                         new objects until they are sent
    reader, download, location    reading; copying to the local disk; the names of repositories
    trust, remote, net            public keys and the chain of trust; files over HTTP; connections
    errors                        the exceptions, with exit codes
"""
