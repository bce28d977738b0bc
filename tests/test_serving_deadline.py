"""Bursts: every request is predicted, or the operator is told; and what hangs keeps no one."""

import asyncio
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import ssjf
from serving_tools import COMPLETIONS, HEADER, FakeProxy, counted, read, reply, wrapped
from ssjf.serving.watch import Watch

BURST = 40


class Slow(FakeProxy):
    """Takes 30 ms to predict; notes in which order it was asked."""

    def __init__(self, seconds=0.03):
        super().__init__()
        self.seconds, self.asked = seconds, []

    def predict(self, prompts):
        time.sleep(self.seconds)
        self.asked.append(prompts[0])
        return super().predict(prompts)


BODY = b'{"prompt": "%d", "max_tokens": null}'


def burst(middleware, n=BURST, body=None):
    """Post so many requests at once."""

    async def post(i):
        message = {"type": "http.request", "body": body or BODY % (i + 1)}
        scope = {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": []}

        async def receive():
            return message

        async def send(_):
            pass

        await middleware(scope, receive, send)

    async def posts():
        await asyncio.gather(*(post(i) for i in range(n)))

    asyncio.run(posts())


async def answers(scope, receive, send):
    await read(receive)
    assert HEADER in dict(scope["headers"])
    await reply(send)


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_a_burst_is_predicted_to_its_last_request_in_order_of_arrival(caplog):
    proxy, before = Slow(), counted("predictions_total")
    burst(wrapped(answers, proxy, takes=0.03))
    assert counted("predictions_total") - before == BURST
    assert proxy.asked == [str(i + 1) for i in range(BURST)]
    assert counted("unpredicted_share") == 0 and not warnings(caplog)


def test_with_a_deadline_that_is_too_short_the_operator_is_told_once(caplog):
    middleware, before = wrapped(answers, Slow(), deadline_ms=20), counted("predictions_total")
    for _ in range(3):
        burst(middleware)
    missed = 1 - (counted("predictions_total") - before) / (3 * BURST)
    assert counted("unpredicted_share") == pytest.approx(missed, abs=0.05) and missed > 0.9
    (told,) = warnings(caplog)
    assert "100 % of the last 6 requests were not predicted (mostly: deadline)" in told
    assert "--deadline-ms" in told and "--check" in told


def test_what_nobody_waits_for_is_not_predicted():
    """Requests that have missed their deadline make no one else wait."""
    proxy = Slow()
    middleware = wrapped(answers, proxy, deadline_ms=20)
    burst(middleware)
    time.sleep(0.1)
    assert len(proxy.asked) <= 3


def test_the_deadline_follows_what_predictions_take_while_serving():
    proxy = Slow(0.001)
    middleware = wrapped(answers, proxy)
    predictor = middleware._predictor
    assert predictor.deadline_seconds(0) == 0.05
    proxy.seconds = 0.05
    for _ in range(4):
        burst(middleware, 20)
    assert predictor.deadline_seconds(0) >= 0.2
    assert predictor.deadline_seconds(10**6) == 2.0


def test_a_warning_comes_again_once_it_was_well_in_between(caplog, monkeypatch):
    monkeypatch.setattr("ssjf.serving.watch.QUIET_SECONDS", 0.0)
    watch = Watch()
    for reason, n in (("", 200), ("predictor_error", 5), ("", 100)):
        for _ in range(n):
            watch.note(reason)
    assert not warnings(caplog)
    for reason, n in (("predictor_error", 50), ("", 100), ("queue_full", 6), ("deadline", 5)):
        for _ in range(n):
            watch.note(reason)
    first, second = warnings(caplog)
    assert "6 % of the last 100" in first and "choose another --proxy" in first
    assert "mostly: queue_full" in second and counted("unpredicted_share") == 0.11


def test_trouble_that_comes_and_goes_is_told_once_a_minute(caplog):
    watch = Watch()
    for _ in range(5):
        for reason, n in (("deadline", 50), ("", 100)):
            for _ in range(n):
                watch.note(reason)
    assert len(warnings(caplog)) == 1


def test_requests_without_text_are_no_sign_of_trouble(caplog):
    before = counted("unpredicted_total", reason="no_text")
    burst(wrapped(answers, FakeProxy()), 20, b'{"prompt": null}')
    assert counted("unpredicted_total", reason="no_text") == before + 20
    assert not warnings(caplog)


# What this machine can do


def test_what_this_machine_can_predict_is_told_and_nothing_is_started():
    done = ssjf("serve", "m", "--check")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"one at a time: [\d,]+ predictions a second, \d+ of 40 in time", done.output)
    assert re.search(r"a burst of 40: [\d,]+ predictions a second, \d+ of 40 in time", done.output)
    assert re.search(r"waits up to [\d.e+]+ ms .* last of the burst up to [\d.e+]+ ms", done.output)
    told = ssjf("serve", "m", "--check", "--deadline-ms", "7").output
    assert "waits up to 7 ms for its prediction, the last of the burst up to 7 ms" in told


# The end

HANGING = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[1])
from serving_tools import FakeProxy
from test_serving_deadline import answers, burst, wrapped
proxy = FakeProxy()
proxy.mode = "held"
middleware = wrapped(answers, proxy, deadline_ms=5)
burst(middleware, 3)
async def shut():
    told = iter(["lifespan.startup", "lifespan.shutdown"])
    async def receive():
        return {"type": next(told)}
    async def app(scope, receive, send):
        while (await receive())["type"] != "lifespan.shutdown":
            pass
    middleware._app = app
    await middleware({"type": "lifespan"}, receive, None)
asyncio.run(shut())
print("ended", flush=True)
"""


def test_a_predictor_that_hangs_does_not_keep_the_process_alive():
    command = [sys.executable, "-c", HANGING, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
