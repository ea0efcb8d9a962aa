"""The router's HTTP application: which middlewares and routes it has."""

from aiohttp import web

from ringcast_router.front import admin, auth, feeds, forward, inference, listing, upstream
from ringcast_router.front.keys import ROUTER
from ringcast_router.router import Router


def make_app(router: Router) -> web.Application:
    """Return the application through which clients reach `router`.

    What serves it must cancel the handler of a client that leaves (`handler_cancellation=True`) and pass bodies as they
    come (`auto_decompress=False`), as `command.server.Server` does; a `connections.ClientRunner` answers the errors.
    """
    app = web.Application(middlewares=[auth.authenticate])
    app[ROUTER] = router
    for part in (inference, upstream, listing, admin, feeds):
        app.add_routes(part.routes())
    app.on_response_prepare.append(auth.allow_origin)
    forward.install(app)
    return app
