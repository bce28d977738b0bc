"""What is sent for one request, passed on at once and looked at in passing."""

from collections.abc import Callable

from ssjf.serving.receiving import Incoming, Message, Send
from ssjf.serving.response import Stream, Untaught, Whole, watch


class Watched:
    """Sends as ``send`` does; calls ``begun`` before the first bytes of the response's body."""

    def __init__(self, request: Incoming, send: Send, begun: Callable[[], None]) -> None:
        self._request, self._send, self._begun = request, send, begun
        self._observer: Whole | Stream | None = None
        self._not_seen = "unfinished"

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        try:
            self._look(message)
        except Untaught as why:
            self._observer, self._not_seen = None, why.reason
        except Exception:  # whatever it holds that is no message of HTTP
            self._observer, self._not_seen = None, "unreadable"
        await self._send(message)

    def _look(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._observer = watch(message)
        elif message["type"] == "http.response.body":
            data, more = message.get("body", b""), message.get("more_body", False)
            if data or not more:
                self._begun()
            if self._observer is not None:
                self._observer.add(data)
            if not more and self._observer is not None:
                self._not_seen = "disconnected" if self._request.gone else ""

    def answer(self) -> Whole | Stream:
        """What has seen the response to its end; Untaught if nothing has."""
        if self._observer is None or self._not_seen:
            raise Untaught(self._not_seen)
        return self._observer
