"""From options to what predicts: all that can be wrong is found before a request comes."""

import logging
from pathlib import Path

from ssjf.errors import InputError
from ssjf.proxy import io as folder
from ssjf.serving.forecasting import Forecaster
from ssjf.serving.learning import LEARNERS
from ssjf.serving.online import Teacher
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import Predictor
from ssjf.serving.state import StateFile


def load(options: ServeOptions) -> Predictor:
    """A predictor that has predicted once and knows what was saved; InputError if one cannot be."""
    forecaster = forecaster_of(options)
    try:
        forecaster.warm_up()
    except Exception as error:
        raise InputError(
            f"proxy {options.proxy} does not predict ({type(error).__name__}: {error})"
        ) from None
    state = state_of(options)
    if state is not None:
        _restore(forecaster, state)
    teacher = Teacher(forecaster, state, options.save_seconds, options.max_state_bytes)
    return Predictor(forecaster, teacher, options.max_batch)


def check(options: ServeOptions) -> None:
    """InputError for what ``load`` could not use; a server may take minutes to find it out."""
    forecaster_of(options)
    state_of(options)


def forecaster_of(options: ServeOptions) -> Forecaster:
    """The proxy, with what learns in the way that is asked for."""
    proxy = folder.load(options.proxy)
    if options.learn == "retrieval" and not hasattr(proxy, "learn"):
        raise InputError(
            f"proxy {options.proxy} is no retrieval proxy, which learn 'retrieval' needs; "
            "learn 'calibration' suits every proxy"
        )
    return LEARNERS[options.learn](proxy, _card(options).get("text") == "history")


def state_of(options: ServeOptions) -> StateFile | None:
    """The file that keeps what is learned, checked, or None."""
    if not options.state:
        return None
    found = StateFile(Path(options.state), options.learn, _card(options)["sha256"])
    found.check()
    return found


def _card(options: ServeOptions) -> dict:
    named = options.proxy == folder.BUILTIN
    return folder.card(folder.builtin_folder() if named else Path(options.proxy))


def _restore(forecaster: Forecaster, state: StateFile) -> None:
    if (saved := state.read()) is None:
        return
    try:
        forecaster.restore(saved)
    except Exception as error:  # whatever a file of another version holds
        state.put_aside(f"{type(error).__name__}: {error}")
    else:
        logging.getLogger(__name__).info("state %s: gone on with", state.path)
