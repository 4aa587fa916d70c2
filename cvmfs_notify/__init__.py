"""Notifications: publishers announce new revisions of repositories, subscribers receive them.

::

    errors         the exceptions, with HTTP status and reason
    messages       activity messages and subscriptions, as they are on the wire
    broker         per repository the newest revision, per subscriber one slot; no I/O
    store          what is kept across restarts: the newest message of each repository
    trust          verifies manifests before they are passed on
    authorization  signatures of publishers and of webhook requests
    sse            server-sent events: framing, the two dialects, and a parser
    stream         one open event stream, which owns its transport
    hub            all of these put together, in one event loop
    keepalive      settings of a subscriber's socket
    sockets        listening sockets, also inherited ones
    supervisor     the parent process, which keeps listening sockets open while workers are replaced
    client         subscribing to a server, and publishing to one
    webhook        requests to a CI system
    config         the stand-alone server: its settings
    remote         ... trust anchors of repositories on other machines
    server         ... its routes, and how uvicorn serves them
    websocket      ... the route for clients of its predecessor
    relay          ... forwards the messages of other servers
    cli            ... the command line

Of the other packages, it imports only the manifest and signature formats of the object store.
"""
