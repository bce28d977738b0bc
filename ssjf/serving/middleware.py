"""Set each request's vLLM priority from its predicted output length.

``vllm serve MODEL --scheduling-policy priority --middleware ssjf.serving.Middleware``. It is plain
ASGI and imports neither vLLM nor its web framework.
"""

import asyncio
import logging
import os
import time

from ssjf.errors import InputError
from ssjf.serving import openai
from ssjf.serving.forecaster import Ordered
from ssjf.serving.metrics import metrics, trace
from ssjf.serving.openai import IncomingRequest, NotPredicted, Receive, Scope, Send
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import Predictor, load
from ssjf.serving.priority import ESTIMATE, HEADER, Prioritiser
from ssjf.serving.response import NotLearnable, ResponseObserver

LOG = logging.getLogger(__name__)


class Middleware:
    """Sets the header X-Vllm-Priority of requests posted to the routes of ``openai.LIMITS``.

    Bodies and answers pass untouched. A client's own priority does not, on any route, unless the
    options allow it. Requests without a prediction are counted by reason. Options, and with them
    the predictor, come from the environment (see ``ServeOptions``) unless given.
    """

    def __init__(
        self, app: openai.Application, options: ServeOptions | None = None,
        predictor: Predictor | None = None,
    ) -> None:  # fmt: skip
        self._app, self._overtaking = app, OvertakingCounter()
        self._wrong: InputError | None = None
        try:
            options = options or ServeOptions.from_environment(os.environ)
            _log_at(options.log_level)
            self._predictor = predictor or load(options)
        except InputError as error:  # reported when the server starts, which then stops
            self._wrong = error
        else:
            self._prioritiser = Prioritiser(options, self._predictor)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif self._wrong is not None:
            raise self._wrong
        elif scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
        else:
            self._see_server(scope)
            request = IncomingRequest(scope, receive)
            if openai.route_of(scope["path"]) is None:
                await self._guard(request)
                await self._app(request.scope, request.receive, send)
            else:
                await self._complete(request, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Fail to start with one sentence; save what was learned before the server ends."""
        if self._wrong is not None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"ssjf: {self._wrong}"})
            return

        async def received() -> openai.Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._predictor.stop)
            return message

        await self._app(scope, received, send)

    async def _guard(self, request: IncomingRequest) -> None:
        try:
            await self._prioritiser.guard(request)
        except NotPredicted:  # the client has disconnected
            pass
        except Exception as error:
            LOG.warning("a request goes on as it came (%s)", type(error).__name__)

    async def _complete(self, request: IncomingRequest, send: Send) -> None:
        began_ns = time.time_ns()
        ordered = await self._prioritise(request)
        _trace(request, began_ns)
        place = self._overtaking.arrive()
        observer = ResponseObserver(request, send, lambda: self._overtaking.begin(place))
        try:
            await self._app(request.scope, request.receive, observer.send)
        finally:
            self._overtaking.leave(place)
            self._prioritiser.in_flight.leave(request)
            if ordered is not None:
                self._learn(ordered, observer)

    def _see_server(self, scope: Scope) -> None:
        """Read vLLM's API keys, and its slots (max_num_seqs), which a contract's replay needs."""
        state = getattr(scope.get("app"), "state", None)
        keys = getattr(getattr(state, "args", None), "api_key", None) or ()
        self._prioritiser.api_keys.set([keys] if isinstance(keys, str) else keys)
        config = getattr(state, "vllm_config", None)
        tuner = self._predictor.learner.tuner
        if config is not None and tuner is not None:
            tuner.slots = config.scheduler_config.max_num_seqs

    async def _prioritise(self, request: IncomingRequest) -> Ordered | None:
        try:
            return await self._prioritiser.prioritise(request)
        except NotPredicted as why:
            metrics().unpredicted.labels(str(why)).inc()
        except Exception as error:  # a mistake here must never cost an answer
            metrics().unpredicted.labels("internal_error").inc()
            self._predictor.watch.note("internal_error")
            LOG.warning("a request goes on as it came (%s)", type(error).__name__)
        return None

    def _learn(self, ordered: Ordered, observer: ResponseObserver) -> None:
        try:
            self._predictor.learn(ordered, observer.response())
        except NotLearnable as why:
            if ordered.forecast is not None:
                metrics().not_learned.labels(str(why)).inc()
            predicted, used = ordered.n * ordered.tokens, observer.used_tokens()
            self._predictor.learner.senders.note(ordered.sender, predicted, used, whole=False)


class OvertakingCounter:
    """Counts requests whose response begins before that of one that arrived earlier.

    A streamed response begins with its first token, any other with its whole answer.
    """

    def __init__(self) -> None:
        self._waiting: dict[object, None] = {}  # by arrival

    def arrive(self) -> object:
        """Return a new request's place."""
        place = object()
        self._waiting[place] = None
        return place

    def begin(self, place: object) -> None:
        """Note that its response begins."""
        if place in self._waiting:
            if next(iter(self._waiting)) is not place:
                metrics().overtaking.inc()
            del self._waiting[place]

    def leave(self, place: object) -> None:
        """Note that it has ended, answered or not."""
        self._waiting.pop(place, None)


def _trace(request: IncomingRequest, began_ns: int) -> None:
    """Record the request's span, with its prediction, if any, and its priority."""
    named = {"ssjf.priority": HEADER, "ssjf.predicted_tokens": ESTIMATE}
    values = {name: request.header(header) for name, header in named.items()}
    try:
        trace(request, began_ns, {name: int(value) for name, value in values.items() if value})
    except Exception as error:  # a mistake here must never cost an answer
        LOG.warning("a request is not traced (%s)", type(error).__name__)


def _log_at(level: str) -> None:
    """Log the package to standard error, unless the server has a place for it."""
    log = logging.getLogger("ssjf")
    log.setLevel(level.upper())
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
