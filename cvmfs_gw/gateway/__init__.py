"""The gateway without HTTP: configuration, keys, leases, object packs, the queue of commits."""
