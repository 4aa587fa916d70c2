"""The publisher: reads a repository over HTTP, makes the change, and commits it through a gateway.

Works against this gateway and the reference's; synchronous, needs no privileges, and keeps its work in a temporary
folder.
"""
