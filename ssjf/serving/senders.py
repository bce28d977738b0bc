"""Senders: whether vLLM will accept their requests, and how long their answers really are.

A sender is its API key if vLLM checks keys; else what the request says of itself,
``Authorization`` and ``user``, which a liar can change at will. A salted hash is kept, no text.
"""

import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from ssjf.serving.openai import IncomingRequest

MOST_SENDERS = 10_000  # the least recently answered is forgotten
HALF_LIFE = 50  # answers of a sender after which one counts half
PRIOR = 8  # answers of predicted length that every sender starts with
TOLERANCE = 1.25  # a smaller ratio of used to predicted tokens does not count
MOST_TIMES = 4  # an answer counts at most as this many times what was expected of the sender
_SALT = os.urandom(16)


class Senders:
    """The ratio of used to predicted tokens of senders whose answers are regularly longer.

    One thread may ask for factors while another notes answers.
    """

    def __init__(self) -> None:
        # Answers, tokens predicted and tokens used, the older ones counting less
        self._accounts: OrderedDict[bytes, tuple[float, float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def factor(self, sender: bytes) -> float:
        """Return the factor for predictions of a sender, at least 1."""
        answers, predicted, used = self._accounts.get(sender, (0.0, 1.0, 1.0))
        ratio = (PRIOR + answers * used / predicted) / (PRIOR + answers)
        return ratio if ratio > TOLERANCE else 1.0

    def note(self, sender: bytes, predicted: float, used: float, whole: bool = True) -> None:
        """Note an answer's tokens; one that is not whole counts only if it is too long."""
        if not sender or used < 1 or not (whole or used > predicted):
            return
        counted = min(used, MOST_TIMES * self.factor(sender) * predicted)
        decay, before = 0.5 ** (1 / HALF_LIFE), self._accounts.get(sender, (0.0, 0.0, 0.0))
        pairs = zip(before, (1.0, predicted, counted), strict=True)
        answers, predicted, used = (decay * old + new for old, new in pairs)
        self._accounts[sender] = (answers, predicted, used)
        self._accounts.move_to_end(sender)
        if len(self._accounts) > MOST_SENDERS:
            self._accounts.popitem(last=False)


class ApiKeys:
    """The API keys that vLLM accepts; none if it accepts all requests."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._hashes: list[bytes] = []
        self.set(())

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def set(self, keys: Iterable[str]) -> None:
        """Take the keys of ``--api-key``, or else ``$VLLM_API_KEY``, as vLLM does."""
        valid = [key for key in ([*keys] or [os.environ.get("VLLM_API_KEY", "")]) if key]
        if valid != self._keys:
            self._keys = valid
            self._hashes = [hashlib.sha256(key.encode()).digest() for key in valid]

    def take(self, request: IncomingRequest) -> bool:
        """Will vLLM accept the request? Compared as it does, in constant time."""
        if not self._hashes:
            return True
        scheme, _, key = (request.header(b"authorization") or b"").partition(b" ")
        # Starlette reads headers as Latin-1, and vLLM hashes them as UTF-8
        sent = hashlib.sha256(key.decode("latin-1").encode()).digest()
        matches = [secrets.compare_digest(sent, known) for known in self._hashes]
        return scheme.lower() == b"bearer" and any(matches)

    def sender(self, request: IncomingRequest, body: Mapping[str, Any]) -> bytes:
        """Return the hash of who sends a request, empty if nothing says."""
        name = (request.header(b"authorization") or b"").decode("latin-1")
        user = body.get("user")
        if not self and isinstance(user, str):
            name += f"\n{user}"
        data = name.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=16, key=_SALT).digest() if name else b""
