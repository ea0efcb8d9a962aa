"""Under which key handlers find the router in their application."""

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from ringcast_router.router import Router

ROUTER: "web.AppKey[Router]" = web.AppKey("router")
