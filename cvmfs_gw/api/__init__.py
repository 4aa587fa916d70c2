"""The HTTP layer: a module of routes per resource, which parse, call the service and reply; and the server process."""
