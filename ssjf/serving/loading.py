"""From options to a predictor: every mistake in them is found before the first request."""

import logging
from pathlib import Path

from ssjf.errors import InputError
from ssjf.proxy import io
from ssjf.serving.forecaster import FORECASTERS, Forecaster
from ssjf.serving.online import OnlineLearner
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import Predictor
from ssjf.serving.state import StateFile

LOG = logging.getLogger(__name__)
DEADLINE_PREDICTIONS, LEAST_DEADLINE_MS = 4, 20.0


def load(options: ServeOptions) -> Predictor:
    """A predictor that is warm and has the saved state; InputError if there can be none."""
    forecaster, state = check(options)
    try:
        seconds = forecaster.warm_up()
    except Exception as error:
        raise InputError(
            f"proxy {options.proxy} does not predict ({type(error).__name__}: {error})"
        ) from None
    if state is not None:
        _restore(forecaster, state)
    learner = OnlineLearner(
        forecaster, state, options.save_seconds, int(1e6 * options.max_state_mb)
    )
    return Predictor(forecaster, learner, _deadline_seconds(options, seconds))


def check(options: ServeOptions) -> tuple[Forecaster, StateFile | None]:
    """Forecaster and state file; InputError, of which a server would learn only minutes later."""
    proxy, card = io.load(options.proxy), io.card(options.proxy)
    if options.learn == "retrieval" and not hasattr(proxy, "learn"):
        raise InputError(
            f"proxy {options.proxy} is no retrieval proxy, which learn 'retrieval' needs; "
            "learn 'calibration' suits every proxy"
        )
    forecaster = FORECASTERS[options.learn](proxy, card.get("text") == "history")
    if not options.state:
        return forecaster, None
    state = StateFile(Path(options.state), options.learn, card["sha256"])
    state.check()
    return forecaster, state


def _deadline_seconds(options: ServeOptions, seconds: float) -> float:
    """The option, or by default a multiple of the measured seconds of one prediction."""
    ms = options.deadline_ms or max(1e3 * DEADLINE_PREDICTIONS * seconds, LEAST_DEADLINE_MS)
    LOG.info("a prediction takes %.3g ms; requests wait up to %.3g ms for it", 1e3 * seconds, ms)
    return ms / 1e3


def _restore(forecaster: Forecaster, state: StateFile) -> None:
    if (saved := state.read()) is None:
        return
    try:
        forecaster.restore(saved)
    except Exception as error:  # of another version
        state.put_aside(f"{type(error).__name__}: {error}")
    else:
        LOG.info("state %s is restored", state.path)
