"""Online learning: from finished requests to the forecaster, and to the file that keeps it.

The file is always whole: the new one or the one before. Its first line says what it is and the
hash of the rest. It holds lengths and hashed n-grams, no text. If several server processes share
it, it keeps what the last one wrote.
"""

import hashlib
import json
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

from ssjf.errors import InputError
from ssjf.files import whole_file
from ssjf.serving.forecaster import Forecaster, Ordered
from ssjf.serving.metrics import metrics
from ssjf.serving.response import NotLearnable, Response
from ssjf.serving.senders import Senders
from ssjf.serving.tuner import Done, Tuner

STATE_FORMAT = 2
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StateFile:
    """Path, way of learning (the option ``learn``), and the proxy learned about (its hash)."""

    path: Path
    learn: str
    proxy_sha256: str

    def check(self) -> None:
        """InputError unless the file can be written."""
        folder = self.path.absolute().parent
        if self.path.is_dir() or not folder.is_dir():
            raise InputError(f"state {self.path} must be a file in a folder that is there")
        if not os.access(folder, os.W_OK):
            raise InputError(f"state {self.path}: {folder} is not yours to write to")

    def read(self) -> bytes | None:
        """Return what was saved, or None; any other file is put aside with a warning."""
        # Left by killed processes; a process that is writing now saves again later
        for partial in self.path.absolute().parent.glob(f".{self.path.name}.*.tmp"):
            partial.unlink(missing_ok=True)
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"state {self.path} cannot be read ({error.strerror})") from None
        line, _, state = data.partition(b"\n")
        if line == self._line(state):
            return state
        self.put_aside("it was not written whole for this proxy and way of learning")
        return None

    def put_aside(self, why: str) -> None:
        """Rename the file, to keep it."""
        names = (f"{self.path.name}.aside-{i}" for i in range(1, 10**6))
        aside = next(p for p in map(self.path.with_name, names) if not p.exists())
        os.replace(self.path, aside)
        LOG.warning("state %s is not used: %s; it is kept as %s", self.path, why, aside)

    def write(self, state: bytes) -> None:
        """Replace the file; if that fails (InputError) the one before stays."""
        with whole_file(self.path) as partial, partial.open("wb") as file:
            file.write(self._line(state) + b"\n" + state)
            file.flush()
            os.fsync(file.fileno())

    def _line(self, state: bytes) -> bytes:
        header = {"format": STATE_FORMAT, "learn": self.learn, "proxy": self.proxy_sha256,
                  "sha256": hashlib.sha256(state).hexdigest()}  # fmt: skip
        return json.dumps(header).encode()


class OnlineLearner:
    """Has a forecaster learn, and saves its state at most every ``save_seconds``.

    ``senders``: how long each sender's answers are; it is not saved.
    """

    def __init__(
        self, forecaster: Forecaster, state: StateFile | None, save_seconds: float, max_bytes: int,
        tuner: Tuner | None = None,
    ) -> None:  # fmt: skip
        self._forecaster, self._state, self.tuner = forecaster, state, tuner
        self.senders = Senders()
        self.save_seconds, self._max_bytes = save_seconds, max_bytes
        self._changed, self._problem = False, ""

    def learn(self, ordered: Ordered, response: Response, finished_at: float) -> None:
        """Learn from a request's whole response, or count why not."""
        forecast = ordered.forecast
        try:
            used = response.used_tokens()
            self.senders.note(ordered.sender, ordered.n * ordered.tokens, used)
            if forecast is None:
                return
            if ordered.n != 1:
                raise NotLearnable("several_answers")  # usage is their sum
            tokens, cut_off = response.output_tokens()
            if self.tuner is not None and forecast.arrived_at < finished_at:
                self.tuner.finished(Done(forecast.arrived_at, forecast.tokens, tokens, finished_at))
            if not cut_off:
                metrics().log_ratio.observe(abs(math.log(forecast.tokens / tokens)))
            self._forecaster.learn(ordered.model, forecast, tokens, cut_off)
        except NotLearnable as why:
            metrics().not_learned.labels(str(why)).inc()
        except Exception as error:  # a request must never suffer from learning
            metrics().not_learned.labels("error").inc()
            LOG.debug("nothing was learned (%s)", type(error).__name__)
        else:
            metrics().learned.inc()
            self._changed = True

    def save(self) -> None:
        """Save the state if it has changed; a failure is counted, and logged the first time."""
        if self._state is None or not self._changed:
            return
        outcome, problem = "saved", ""
        try:
            state = self._forecaster.state()
            if len(state) > self._max_bytes:
                outcome = "too_large"
                problem = f"{len(state)} bytes are more than {self._max_bytes}"
            else:
                self._state.write(state)
        except Exception as error:
            outcome, problem = "failed", str(error)
        if problem and outcome != self._problem:
            LOG.warning("state %s is not saved: %s", self._state.path, problem)
        metrics().saves.labels(outcome).inc()
        self._changed, self._problem = outcome == "failed", outcome  # failed: tried again
