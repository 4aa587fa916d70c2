"""The upload API: files and archives with a time to live, over HTTP, without leases and publishers.

Bodies are stored as they arrive and become visible in commits that several uploads share. Expired entries are removed
by the server's own commits. All commits go through the same engine.
"""
