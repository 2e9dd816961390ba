"""What every request passes: errors become OpenAI's, and a key may be asked for."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

from server.api.credentials import Keys
from server.api.http.errors import error_response, plain_error
from server.api.key_check import NEEDS_KEY, WRONG_KEY
from server.api.metrics import Metrics
from server.api.refusal import Kind, Refusal

_logger = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OPEN = "/health"  # load balancers have no key


def make_guards(keys: Keys | None, metrics: Metrics) -> Sequence[Middleware]:
    """The middlewares of the HTTP server; `keys` None asks for none."""

    @web.middleware
    async def tell_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return error_response(refusal)
        except web.HTTPException as error:
            return plain_error(error, request.path, request.method)
        except ConnectionError:
            raise  # the client went away; aiohttp cleans up
        except Exception as error:
            _logger.exception("a request to %s failed", request.path)
            message = f"the server failed on this request: {type(error).__name__}: {error}"
            return error_response(Refusal(Kind.FAILED, message, "failed"))

    @web.middleware
    async def check_key(request: web.Request, handler: _Handler) -> web.StreamResponse:
        shown = request.headers.get("Authorization")
        if keys is None or request.path == _OPEN or keys.allow(shown):
            return await handler(request)
        metrics.refuse("unauthenticated")
        raise Refusal(Kind.UNAUTHENTICATED, WRONG_KEY if shown else NEEDS_KEY, "unauthenticated")

    return [tell_errors, check_key]
