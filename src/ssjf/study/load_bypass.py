"""The middleware, but for requests that ask to go past it: its cost on one and the same server."""

from ssjf.serving.middleware import Middleware
from ssjf.serving.receiving import Receive, Scope, Send

PAST = "x-ssjf-past"
OPTIONS = ("--scheduling-policy", "priority", "--middleware", f"{__name__}.Bypassed")
"""Options of ``vllm serve``; the middleware's are in its environment."""


class Bypassed(Middleware):
    """For measurements alone: a request with the header ``PAST`` never meets the middleware."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if any(name == PAST.encode() for name, _ in scope.get("headers", ())):
            await self._app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
