"""Who sends a request: whether vLLM will have it, and what their answers take over predictions.

A sender is its API key where vLLM checks keys. Elsewhere it is what the request says of itself,
``Authorization`` and ``user``, which a liar can change at will. A salted hash is kept, no text.
"""

import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from ssjf.serving.openai import IncomingRequest

MOST_SENDERS = 10_000  # the least recently answered goes
HALF_LIFE = 50  # answers of a sender after which one counts half
PRIOR = 8  # answers of its usual length that every sender is taken to have had as predicted
TOLERANCE = 1.25  # what answers may take of what was predicted, before it counts
MOST_TIMES = 4  # one answer counts at most as so many times what was expected of the sender
NEW = (0.0, 1.0, 1.0)
_SALT = os.urandom(16)


class Senders:
    """What senders' answers take, over what was predicted of them, where that is again and again
    more. One thread may ask for factors while another one notes answers."""

    def __init__(self) -> None:
        # Answers, tokens predicted and tokens used, the older ones counting less
        self._accounts: OrderedDict[bytes, tuple[float, float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def factor(self, sender: bytes) -> float:
        """What a prediction is to be multiplied by, at least 1."""
        answers, predicted, used = self._accounts.get(sender, NEW)
        ratio = (PRIOR + answers * used / predicted) / (PRIOR + answers)
        return ratio if ratio > TOLERANCE else 1.0

    def note(self, sender: bytes, predicted: float, used: float, whole: bool = True) -> None:
        """An answer of so many tokens; one that is not whole counts only where it is too long."""
        if not sender or used < 1 or not (whole or used > predicted):
            return
        counted = min(used, MOST_TIMES * self.factor(sender) * predicted)
        decay, before = 0.5 ** (1 / HALF_LIFE), self._accounts.get(sender, (0.0, 0.0, 0.0))
        told = zip(before, (1.0, predicted, counted), strict=True)
        answers, predicted, used = (decay * old + new for old, new in told)
        self._accounts[sender] = (answers, predicted, used)
        self._accounts.move_to_end(sender)
        if len(self._accounts) > MOST_SENDERS:
            self._accounts.popitem(last=False)


class ApiKeys:
    """The keys that vLLM takes, none of them where it takes all requests."""

    def __init__(self) -> None:
        self._given: list[str] = []
        self._hashes: list[bytes] = []
        self.set(())

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def set(self, keys: Iterable[str]) -> None:
        """``--api-key``, or else ``$VLLM_API_KEY``, as vLLM has it."""
        given = [key for key in ([*keys] or [os.environ.get("VLLM_API_KEY", "")]) if key]
        if given != self._given:
            self._given = given
            self._hashes = [hashlib.sha256(key.encode()).digest() for key in given]

    def take(self, request: IncomingRequest) -> bool:
        """Will vLLM have the request? Compared as it does: in the same time, whatever is sent."""
        if not self._hashes:
            return True
        scheme, _, key = (request.header(b"authorization") or b"").partition(b" ")
        # Starlette reads headers as Latin-1, and vLLM hashes them as UTF-8
        found = hashlib.sha256(key.decode("latin-1").encode()).digest()
        matches = [secrets.compare_digest(found, each) for each in self._hashes]
        return scheme.lower() == b"bearer" and any(matches)

    def sender(self, request: IncomingRequest, body: Mapping[str, Any]) -> bytes:
        """The hash of who sends a request, empty where nothing says."""
        said = (request.header(b"authorization") or b"").decode("latin-1")
        user = body.get("user")
        if not self and isinstance(user, str):
            said += f"\n{user}"
        data = said.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=16, key=_SALT).digest() if said else b""
