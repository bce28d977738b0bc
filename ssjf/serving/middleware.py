"""The middleware: every request for a completion gets the priority that its predicted length earns.

``vllm serve MODEL --scheduling-policy priority --middleware ssjf.serving.Middleware``. It is plain
ASGI and imports neither vLLM nor its web framework.
"""

import asyncio
import logging
import os

from ssjf.errors import InputError
from ssjf.serving.loading import load
from ssjf.serving.metrics import metrics
from ssjf.serving.online import Lesson
from ssjf.serving.options import ServeOptions
from ssjf.serving.ordering import CHAT, COMPLETIONS, Ordering, Predicted
from ssjf.serving.overtaking import Turns
from ssjf.serving.predictor import Predictor
from ssjf.serving.receiving import (
    Application,
    Incoming,
    Message,
    Receive,
    Scope,
    Send,
)
from ssjf.serving.response import Untaught
from ssjf.serving.watching import Watched

LOG = logging.getLogger(__name__)


class Middleware:
    """Writes ``priority`` into the bodies of POST /v1/completions and /v1/chat/completions.

    All else passes untouched, and so does a body that cannot be read, is too large, or has
    a priority of its client's: every such request is counted by reason. Where a body cannot be
    written to, the header X-Vllm-Priority tells its place (vLLM before 0.28 does not read it, and
    takes such a request first). Options come from the environment (see ``ServeOptions``) unless
    they are given; what predicts is loaded by them unless it is given, too.
    """

    def __init__(
        self, app: Application, options: ServeOptions | None = None,
        predictor: Predictor | None = None,
    ) -> None:  # fmt: skip
        self._app, self._turns = app, Turns()
        self._wrong: InputError | None = None
        try:
            options = options or ServeOptions.from_environment(os.environ)
            _log_at(options.log_level)
            self._predictor = predictor or load(options)
        except InputError as error:  # told when the server starts, which then stops
            self._wrong = error
        else:
            self._ordering = Ordering(options, self._predictor)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self._wrong is not None:
            raise self._wrong
        elif _is_completion(scope):
            await self._complete(Incoming(scope, receive), send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Fail to start with one sentence; save what was learned before the server is gone."""
        if self._wrong is not None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"ssjf: {self._wrong}"})
            return

        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._predictor.stop)
            return message

        await self._app(scope, received, send)

    async def _complete(self, request: Incoming, send: Send) -> None:
        found = await self._order(request)
        place = self._turns.arrive()
        watched = Watched(request, send, lambda: self._turns.begin(place))
        try:
            await self._app(request.scope, request.receive, watched.send)
        finally:
            self._turns.leave(place)
            if found is not None:
                self._learn(found, watched)

    async def _order(self, request: Incoming) -> Predicted | None:
        try:
            return await self._ordering.order(request)
        except Exception as error:  # a mistake here must cost no one an answer
            metrics().unpredicted.labels("internal_error").inc()
            LOG.warning("a request goes on as it came (%s)", type(error).__name__)
            return None

    def _learn(self, found: Predicted, watched: Watched) -> None:
        """Have an answer that was sent to its end teach the predictor."""
        try:
            if found.asked.answers != 1:
                raise Untaught("several_answers")  # usage tells the sum of them
            self._predictor.teach(Lesson(found.asked, found.forecast, watched.answer()))
        except Untaught as why:
            metrics().not_learned.labels(why.reason).inc()


def _is_completion(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and scope["path"].endswith((CHAT, COMPLETIONS))
    )


def _log_at(level: str) -> None:
    """The package's log, on standard error unless the server has a place for it."""
    log = logging.getLogger("ssjf")
    log.setLevel(level.upper())
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
