"""What this machine can predict (``ssjf serve MODEL --check``), and what to warn of before."""

import asyncio
import time
from collections.abc import Sequence

from ssjf import hardware
from ssjf.serving import options as known
from ssjf.serving.forecaster import Forecast, warm_up_request
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import Predictor, load

BURST = 40


def capacity(options: ServeOptions) -> str:
    """Describe predictions a second, one at a time and in a burst, and the resulting deadline."""
    predictor = load(options.model_copy(update={"state": ""}))
    first, last = (1e3 * predictor.deadline_seconds(before) for before in (0, BURST - 1))
    return (
        f"proxy {options.proxy}, prompts of about 256 tokens:\n"
        f"  one at a time: {asyncio.run(_rate(predictor, 1))}\n"
        f"  a burst of {BURST}: {asyncio.run(_rate(predictor, BURST))}\n"
        f"  a request waits up to {first:.3g} ms for its prediction, "
        f"the last of the burst up to {last:.3g} ms"
    )


async def _rate(predictor: Predictor, at_once: int) -> str:
    """Describe how fast, and how many of ``BURST`` requests in time, ``at_once`` at a time."""
    started, in_time = time.monotonic(), 0
    for first in range(0, BURST, at_once):
        requests = [warm_up_request(i) for i in range(first, first + at_once)]
        calls = [predictor.forecast(request, time.monotonic()) for request in requests]
        forecasts = await asyncio.gather(*calls, return_exceptions=True)
        in_time += sum(isinstance(forecast, Forecast) for forecast in forecasts)
    rate = in_time / (time.monotonic() - started)
    return f"{rate:,.0f} predictions a second, {in_time} of {BURST} in time"


def warnings(vllm_options: Sequence[str]) -> list[str]:
    """Return what an operator should know before the server starts, a sentence each."""
    found = []
    dtypes = known.values(vllm_options, "--dtype")
    if known.on_cpu() and set(dtypes) <= {"auto"} and hardware.precision() == "float32":
        found.append(
            "this CPU has no instructions for bfloat16, which vLLM emulates for a model in "
            "bfloat16, many times slower; give --dtype float32"
        )
    for name in ("--api-server-count", "--data-parallel-size"):
        if any(value.isdigit() and int(value) > 1 for value in known.values(vllm_options, name)):
            found.append(
                f"with {name} above 1 each server process predicts and learns for itself, from the "
                "requests that reach it; of --state the last to write is kept"
            )
    return found
