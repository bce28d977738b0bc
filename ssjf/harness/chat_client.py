"""Send chats to a server as its users do: with the ``openai`` client, streamed.

    python -m ssjf.harness.chat_client < job

prints a line of JSON for each chat that has ended. It runs in vLLM's Python, which has that client.
"""

import asyncio
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tqdm import tqdm

from ssjf.errors import InputError
from ssjf.harness.interpreter import last_line, python
from ssjf.harness.server import DIRECT, HOST, LiveServer, environment

PRIORITY = "X-Vllm-Priority"
BURST_GAP_SECONDS = 0.01  # sockets opened at one instant would be accepted in any order


def chats(
    server: LiveServer,
    prompts: Sequence[str],
    decoding: Mapping[str, Any],
    priorities: Sequence[int] | None = None,
    users: int | None = None,
    words: str = "chats",
) -> pd.DataFrame:
    """Send each prompt as a chat of one message; a row per request in the order of the prompts.

    Parameters
    ----------
    decoding: ``most_tokens``, ``temperature``, ``repetition_penalty``. priorities: sent as vLLM's
    header, which `ssjf serve` trusts if told to. users: their number, each of whom sends the next
    prompt once answered; if None all prompts are sent at once, in order. words: of the progress
    bar.

    Returns
    -------
    arrived_at, scheduled_at and first_token_at (the first token), finished_at, in s from the first
    request sent; output_tokens, finish_reason, answer (a hash of its text).

    Raises
    ------
    InputError: if a chat failed.
    """
    job = {
        "url": f"http://{HOST}:{server.port}/v1", "model": server.model, "prompts": [*prompts],
        "decoding": dict(decoding), "users": users,
        "priorities": None if priorities is None else [*map(int, priorities)],
    }  # fmt: skip
    command = [str(python()), "-m", "ssjf.harness.chat_client"]
    with subprocess.Popen(
        command, env=environment(server.model) | DIRECT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        assert client.stdin is not None and client.stdout is not None and client.stderr is not None
        client.stdin.write(json.dumps(job))
        client.stdin.close()
        lines = tqdm(client.stdout, words, len(prompts), unit="answer", disable=None)
        rows = [json.loads(line) for line in lines]
        errors = client.stderr.read()
    if client.returncode or len(rows) < len(prompts):
        why = last_line(errors, "it said nothing")
        raise InputError(f"a chat with {server.model} failed: {why}")
    table = pd.DataFrame(rows).sort_values("i", ignore_index=True).drop(columns="i")
    return table.assign(scheduled_at=table["first_token_at"])


async def _chat(client: Any, job: Mapping[str, Any], i: int, began: float) -> None:
    decoding, priorities = job["decoding"], job["priorities"]
    arrived = time.perf_counter() - began
    stream = await client.chat.completions.create(
        model=job["model"],
        messages=[{"role": "user", "content": job["prompts"][i]}],
        max_tokens=decoding["most_tokens"],
        temperature=decoding["temperature"],
        extra_body={"repetition_penalty": decoding["repetition_penalty"]},
        extra_headers={} if priorities is None else {PRIORITY: str(priorities[i])},
        stream=True,
        stream_options={"include_usage": True},
    )
    first, reason, tokens, text = None, None, 0, hashlib.sha256()
    async for chunk in stream:
        for choice in chunk.choices:
            if choice.delta.content:
                first = first or time.perf_counter() - began
                text.update(choice.delta.content.encode("utf-8", "surrogatepass"))
            reason = choice.finish_reason or reason
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    ended = time.perf_counter() - began
    row = {"i": i, "arrived_at": arrived, "first_token_at": first or ended, "finished_at": ended,
           "output_tokens": tokens, "finish_reason": reason,
           "answer": text.hexdigest()[:16]}  # fmt: skip
    print(json.dumps(row), flush=True)


async def _send(job: Mapping[str, Any]) -> None:
    from openai import AsyncOpenAI

    numbers = iter(range(len(job["prompts"])))
    async with AsyncOpenAI(
        base_url=job["url"], api_key="none", max_retries=0, timeout=3600
    ) as client:
        began = time.perf_counter()
        tasks = []
        if job["users"] is None:
            for i in numbers:
                tasks.append(asyncio.create_task(_chat(client, job, i, began)))
                await asyncio.sleep(BURST_GAP_SECONDS)

        async def user() -> None:
            for i in numbers:
                await _chat(client, job, i, began)

        await asyncio.gather(*tasks, *(user() for _ in range(job["users"] or 0)))


if __name__ == "__main__":
    asyncio.run(_send(json.load(sys.stdin)))
