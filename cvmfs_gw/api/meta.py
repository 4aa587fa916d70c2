"""``/cvmfs-meta/<fqrn>.{pub,crt,conf,sh}``: everything that a client needs to mount a repository. No secrets.

::

    curl http://stratum0.example.org:8080/cvmfs-meta/software.example.org.sh | sudo sh

The URLs in configuration and script have the host name by which the client has reached this server, unless
``uploads.json`` sets others. So replies differ from client to client and must not be cached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.gateway.protocol import API_ROOT
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf, ServerConfError
from cvmfs_gw.stratum0.mount import Mount, authority
from cvmfs_gw.stratum0.settings import UploadSettings

_MAX_KEY: Final = 1 << 20
_TYPES: Final = {
    "pub": "application/x-pem-file",
    "crt": "application/x-pem-file",
    "conf": "text/plain",
    "sh": "text/x-shellscript",
}


@dataclass(frozen=True, slots=True)
class Meta:
    """What is served: the repositories that *names* gives, as the application of *server* (``gateway``, ``web``).

    *ports* are those of both servers, by these names; one that is not there has none.
    """

    paths: SystemPaths
    names: Callable[[], Container[str]]
    settings: Callable[[], UploadSettings]
    server: str
    ports: Mapping[str, int]


META: web.AppKey[Meta] = web.AppKey("meta", Meta)


async def get(request: web.Request) -> web.Response:
    meta, name, kind = request.app[META], request.match_info["name"], request.match_info["kind"]
    if name not in meta.names() or kind not in _TYPES:
        raise web.HTTPNotFound
    try:
        if kind in ("pub", "crt"):
            text = await asyncio.to_thread(_read, meta.paths.key_file(name, kind))
        else:
            mount = _mount(request, meta, name)
            if kind == "conf":
                text = mount.configuration()
            else:
                text = mount.script(await asyncio.to_thread(_read, meta.paths.key_file(name, "pub")))
    except (OSError, UnicodeDecodeError, ServerConfError, EngineError) as error:
        raise web.HTTPNotFound from error
    headers = {"Content-Type": f"{_TYPES[kind]}; charset=utf-8", "Cache-Control": "no-store"}
    return web.Response(text=text, headers=headers)


def _mount(request: web.Request, meta: Meta, fqrn: str) -> Mount:
    settings = meta.settings()
    asked = authority(request.host)
    if asked is None:
        raise web.HTTPBadRequest

    def url(server: str) -> str:
        if server == meta.server:  # it has come here by this name and port, whatever lies in between
            return f"{request.scheme}://{request.host}"
        port = meta.ports.get(server)
        return f"http://{asked[0]}:{port}" if port else ""

    web_url = settings.public_url or url("web")
    stratum0 = f"{web_url}/cvmfs/{fqrn}" if web_url else ServerConf.load(meta.paths.server_conf(fqrn), fqrn).stratum0
    return Mount(fqrn, stratum0, settings.gateway_url or f"{url('gateway')}{API_ROOT}")


def install(app: web.Application, meta: Meta) -> None:
    """Add the routes."""
    app[META] = meta
    app.router.add_get("/cvmfs-meta/{name}.{kind:[a-z]+}", get)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read(_MAX_KEY)
