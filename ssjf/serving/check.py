"""What this machine can predict: ``ssjf serve MODEL --check``."""

import asyncio
import time
from dataclasses import replace

from ssjf.serving.forecaster import WARM_UP
from ssjf.serving.openai import CompletionRequest, NotPredicted
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import Predictor, load

BURST = 40


def told(options: ServeOptions) -> str:
    """Predictions a second, one at a time and in a burst, and the deadline that follows."""
    predictor = load(options.model_copy(update={"state": ""}))
    return asyncio.run(_told(predictor, options.proxy))


async def _told(predictor: Predictor, proxy: str) -> str:
    requests = [replace(WARM_UP, prompts=(f"{i} {WARM_UP.prompts[0]}",)) for i in range(BURST)]
    started = time.monotonic()
    alone = [await _predicted(predictor, each) for each in requests]
    between = time.monotonic()
    burst = await asyncio.gather(*(_predicted(predictor, each) for each in requests))
    ended = time.monotonic()
    lines = [f"proxy {proxy}, prompts of about 256 tokens:"]
    for words, found, seconds in (("one at a time", alone, between - started),
                                  (f"a burst of {BURST}", burst, ended - between)):  # fmt: skip
        in_time = f"{sum(found)} of {BURST} in time"
        lines.append(f"  {words}: {sum(found) / seconds:,.0f} predictions a second, {in_time}")
    first, last = (1e3 * predictor.deadline_seconds(before) for before in (0, BURST - 1))
    lines.append(f"  a request waits up to {first:.3g} ms for its prediction, "
                 f"the last of the burst up to {last:.3g} ms")  # fmt: skip
    return "\n".join(lines)


async def _predicted(predictor: Predictor, request: CompletionRequest) -> bool:
    try:
        await predictor.forecast(request, time.monotonic())
    except NotPredicted:
        return False
    return True
