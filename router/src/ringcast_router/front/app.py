"""The router's HTTP application: which middlewares and routes it has."""

from aiohttp import web

from ringcast_router.front import admin, answers, auth, feeds, forward, inference, listing, upstream
from ringcast_router.front.keys import ROUTER
from ringcast_router.router import Router


def make_app(router: Router) -> web.Application:
    """Return the application through which clients reach `router`.

    What serves it must cancel the handler of a client that leaves (`handler_cancellation=True`) and pass bodies as they
    come (`auto_decompress=False`), as `command.server.Server` does.
    """
    app = web.Application(middlewares=[answers.errors, auth.authenticate])  # the first is the outermost
    app[ROUTER] = router
    for part in (inference, upstream, listing, admin, feeds):
        app.add_routes(part.routes())
    forward.install(app)
    return app
