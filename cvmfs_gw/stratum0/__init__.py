"""A Stratum 0 that takes uploads over HTTP: files and archives with a time to live, without leases and publishers.

What comes in is stored as it arrives, and becomes visible in commits that several uploads share. What has lived its
time is removed by commits of this server's own. Everything goes through the one engine.
"""
