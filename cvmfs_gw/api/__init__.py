"""HTTP: one module of routes for each resource, which parse, call the service and reply; and the running process."""
