"""Who began to be answered before whom."""

from collections import OrderedDict

from ssjf.serving.metrics import metrics


class Turns:
    """The requests, by arrival, whose response has not begun.

    One that begins while an earlier one still waits has overtaken it. With a streamed response
    that is the first token's time, else the whole answer's.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[object, None] = OrderedDict()  # its first is found at once

    def arrive(self) -> object:
        """A new request's place."""
        place = object()
        self._waiting[place] = None
        return place

    def begin(self, place: object) -> None:
        """Its response begins."""
        if place in self._waiting:
            if next(iter(self._waiting)) is not place:
                metrics().overtaking.inc()
            del self._waiting[place]

    def leave(self, place: object) -> None:
        """It has ended, answered or not."""
        self._waiting.pop(place, None)
