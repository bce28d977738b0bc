"""Ten thousand requests over 64 connections while the predictor fails: none lost, none altered."""

import asyncio
import gc
import json
import sys

import httpx

from serving_tools import (
    COMPLETIONS,
    PATIENT,
    FakeProxy,
    answer,
    called,
    counted,
    echo,
    read,
    reply,
    serving,
    until,
    wrapped,
)
from ssjf.proxy import refit
from ssjf.serving import senders, tuner

REQUESTS, CONNECTIONS = 10_000, 64
TROUBLE = {2000: "fails", 3500: "exits", 5000: "slow", 6500: "well"}  # after so many answers


async def exchange(reader, writer, body):
    """One request and its response over an open connection, as HTTP/1.1."""
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answered = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert answered.startswith(b"http/1.1 200")
    priority = int(answered.partition(b"x-priority: ")[2].partition(b"\r\n")[0])
    if b"transfer-encoding: chunked" not in answered:
        length = int(answered.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return priority, await reader.readexactly(length)
    found = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        found += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return priority, found


async def driven(port, proxy):
    """(sent, priority, received) of all requests; the predictor has trouble on the way."""
    numbers, found = iter(range(REQUESTS)), []

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in numbers:
            body = (
                f'{{"prompt": "{i % 900 + 1} é\\u00e9", "seed": {i}, "temperature": 1e0}}'.encode()
            )
            found.append((body, *await exchange(reader, writer, body)))
            proxy.mode = TROUBLE.get(len(found), proxy.mode)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return found


def asked(address, prompt):
    found = httpx.post(address + COMPLETIONS, json={"prompt": prompt})
    return int(found.headers["x-priority"])


def test_none_of_ten_thousand_requests_is_lost_or_altered():
    proxy, options = FakeProxy(), PATIENT | {"deadline_ms": 40, "policy": "ssjf"}
    names = ("predictions_total", "predictor_failures_total")
    before = [counted(name) for name in names]
    middleware = wrapped(echo, proxy, client_limit="ignore", **options)
    with serving(middleware) as address:
        found = asyncio.run(driven(int(address.rpartition(":")[2]), proxy))
        until(lambda: asked(address, "7") == 7000)  # it is well again
    assert len(found) == REQUESTS and len({sent for sent, *_ in found}) == REQUESTS
    predicted = 0
    for sent, priority, received in found:
        assert received == sent
        predicted += priority == 1000 * float(json.loads(sent)["prompt"].split()[0])
    predictions, failures = (counted(name) - was for name, was in zip(names, before, strict=True))
    assert 0 < predictions < REQUESTS and failures >= 2 and predicted >= predictions


async def answered_at_once(scope, receive, send):
    """By as many tokens as the prompt's number says."""
    prompt = json.loads(await read(receive))["prompt"]
    await reply(send, json.dumps(answer(int(prompt.split()[0]))).encode())


def test_memory_is_flat_once_what_is_kept_is_full(monkeypatch):
    """Blocks that Python has allocated, while every sender is a new one."""
    for name, most in (("EVERY", 50), ("WINDOW", 200), ("MEMORY", 500)):
        monkeypatch.setattr(tuner, name, most)
    monkeypatch.setattr(refit, "MOST_ROWS", 100)
    monkeypatch.setattr(senders, "MOST_SENDERS", 100)
    middleware = wrapped(answered_at_once, client_limit="ignore", **PATIENT)
    blocks = {}

    async def everything():
        for i in range(4000):
            prompt = f"{i % 90 + 1} tokens for request {i % 7}"
            await called(middleware, {"prompt": prompt, "user": str(i)})
            if i % 1000 == 999:
                await asyncio.to_thread(middleware._predictor._learning.submit(int).result, 600)
                gc.collect()
                blocks[i] = sys.getallocatedblocks()

    learned = counted("learned_total")
    asyncio.run(everything())
    assert counted("learned_total") == learned + 4000
    assert (blocks[3999] - blocks[1999]) / 2000 < 0.5, blocks
