"""Notifications: who publishes a revision tells everybody who listens, and nobody is lost on the way.

::

    errors      what can be wrong with a message
    messages    activity messages and subscriptions, as they are on the wire
    broker      pure: per repository the newest revision, per subscriber one slot
    store       what outlives a restart: the newest message of each repository
    trust       whose messages count
    sse         framing of event streams, the two dialects, and how standard clients read one
    stream      one open event stream, on a transport that it owns
    hub         all of it put together, in one event loop
    keepalive   settings of a subscriber's socket
    sockets     listening sockets, also inherited ones
    supervisor  the parent that keeps listening sockets open while workers come and go
    client      subscribe and publish from the other side
    webhook     tell a CI system
    config      the stand-alone server: its settings
    remote      ... trust in repositories that lie elsewhere
    server      ... its routes, and how uvicorn serves them
    websocket   ... the route for clients of its predecessor
    relay       ... which says again what other servers say
    cli         ... the command line

Imports nothing of ours but itself and the manifest and signature formats of the object store.
"""
