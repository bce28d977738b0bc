"""The real vLLM behind the middleware, with API keys: nobody jumps the queue, nothing breaks it."""

import gzip
import http.client
import json
import re
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as proto

import vllm_engine
from serving_tools import CHAT, COMPLETIONS, until
from ssjf.harness.models import make
from ssjf.harness.server import LiveServer, options_of
from ssjf.serving.metrics import SPAN
from ssjf.serving.openai import UNHEARD
from ssjf.serving.options import ServeOptions

pytestmark = [vllm_engine.needed, pytest.mark.slow]

KEYS = ["key-of-one", "key-of-another"]
MB = 10**6


class Collector(BaseHTTPRequestHandler):
    """Takes traces as an OpenTelemetry collector does; ``server.taken`` keeps them."""

    def do_POST(self):
        self.server.taken.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def collector():
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as web:
        web.taken = []
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield web
        web.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory, collector):
    """One slot, pure order of predicted length, two API keys, and tracing."""
    model = make("tiny", tmp_path_factory.mktemp("hostile") / "tiny")
    small = vllm_engine.SMALL.replace(slots=1)
    options = ServeOptions(policy="ssjf", learn="none", client_limit="ignore", deadline_ms=60_000)
    traces = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    arguments = [*options_of(small, 1, model), "--api-key", *KEYS,
                 "--otlp-traces-endpoint", traces]  # fmt: skip
    tracing = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
               "OTEL_BSP_SCHEDULE_DELAY": "200"}  # fmt: skip
    live = LiveServer(str(model), arguments, options.environment() | tracing)
    try:
        live.start()
        yield live
    finally:
        live.close()


def posted(server, body, path=COMPLETIONS, key=KEYS[0], **headers):
    """Status and text of an answer; the body is bytes, or parts of it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    given = {"content-type": "application/json", **headers}
    if key is not None:
        given["authorization"] = f"Bearer {key}"
    chunked = not isinstance(body, bytes)
    connection.request("POST", path, body, given, encode_chunked=chunked)
    response = connection.getresponse()
    return response.status, response.read().decode()


def asking(server, prompt="Name a colour.", tokens=4, **more):
    body = {"model": server.model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
    return json.dumps(body | more).encode()


def counted(server, name):
    lines = re.findall(rf"^ssjf_{re.escape(name)} (\S+)$", server.get("/metrics"), re.MULTILINE)
    return float(lines[0]) if lines else 0.0


def test_who_has_no_key_is_refused_by_vllm_and_costs_no_prediction(server):
    before = counted(server, "predictions_total")
    refused = counted(server, 'unpredicted_total{reason="unauthorised"}')
    for path in (COMPLETIONS, CHAT, "/v1/responses", "/v1/messages", *UNHEARD[:2]):
        for key in (None, "key-of-none", f"{KEYS[0]} "):
            status, _ = posted(server, asking(server), path, key)
            assert status == 401
    assert counted(server, "predictions_total") == before
    assert counted(server, 'unpredicted_total{reason="unauthorised"}') == refused + 12
    for key in KEYS:
        assert posted(server, asking(server), key=key)[0] == 200
    assert counted(server, "predictions_total") == before + 2


WAITING = ["Write a detailed essay about railways, with an introduction and a conclusion.",
           "List ten facts about the moon.", "Name a colour."]  # fmt: skip


@pytest.mark.parametrize("by", ["header", "body", "another route"])
def test_a_client_that_claims_to_go_first_waits_for_its_turn(server, by):
    """While a long request holds the slot: the one that claims is the one that is predicted to be
    the longest, or comes by a route that hears no header; it must not go before the shortest."""
    finished, jumper = [], WAITING[0]

    def ask(prompt):
        path, body, headers = COMPLETIONS, asking(server, prompt, 400), {}
        if prompt == jumper and by == "header":
            headers = {"X-Vllm-Priority": "-9"}
        elif prompt == jumper and by == "body":
            body = asking(server, prompt, 400, priority=-9)
        elif prompt == jumper:
            path = f"{CHAT}/batch"
            says = [[{"role": "user", "content": prompt}]]
            body = asking(server, None, 400, priority=-9, messages=says)
        status, text = posted(server, body, path, **headers)
        assert status == 200, text
        finished.append(prompt)

    for _ in range(5):  # on a busy machine, until all three wait while the slot is held
        finished.clear()
        with closing(held(server)) as hold, ThreadPoolExecutor(3) as threads:
            asked = [threads.submit(ask, prompt) for prompt in WAITING]
            until(lambda: all_wait(server) or any(each.done() for each in asked))  # noqa: B023
            in_time = not any(each.done() for each in asked)
            hold.close()
        for each in asked:
            each.result()
        if in_time:
            break
    assert in_time and finished[0] == WAITING[2] and finished.index(jumper) > 0


def held(server):
    """The slot, until that is closed or has said much."""
    hold = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    body = asking(server, WAITING[0], 900, stream=True)
    hold.request("POST", COMPLETIONS, body, {"content-type": "application/json",
                                             "authorization": f"Bearer {KEYS[0]}"})  # fmt: skip
    response = hold.getresponse()
    assert response.status == 200
    response.readline()
    return hold


def all_wait(server):
    time.sleep(0.05)
    return waiting(server) >= len(WAITING)


def waiting(server):
    found = re.findall(r"^vllm:num_requests_waiting\{[^}]*\} (\S+)$", server.get("/metrics"),
                       re.MULTILINE)  # fmt: skip
    return sum(map(float, found))


def hostile(server):
    good = asking(server)
    return {
        "deep JSON": (b"[" * MB, {}, 400),
        "a deep prompt": (b'{"model":"m","prompt":' + b"[" * MB + b"]" * MB + b"}", {}, 400),
        "invalid UTF-8": (good.replace(b"colour", b"\xff\xfe"), {}, 400),
        "compressed": (gzip.compress(good), {"content-encoding": "gzip"}, 400),
        "64 MB": (b'{"prompt": "' + b"a" * 64 * MB + b'"}', {}, 400),
        "half a letter": (good.replace(b"colour", b"\\ud800"), {}, None),
        "chunk by chunk": ((good[i : i + 1] for i in range(len(good))), {}, 200),
        "many headers": (good, {f"x-{i}": "a" for i in range(90)}, 200),
        "ten thousand headers": (good, {f"x-{i}": "a" for i in range(10_000)}, None),
    }  # fmt: skip


def test_hostile_requests_are_vllms_to_answer(server):
    for name, (body, headers, expected) in hostile(server).items():
        try:
            status, text = posted(server, body, **headers)
        except (http.client.HTTPException, OSError):
            status, text = 0, ""  # the web server hung up
        assert expected is None or status == expected, (name, status, text[:200])
        assert posted(server, asking(server))[0] == 200, name
    until(lambda: counted(server, "in_flight_predicted_tokens") == 0)


def spans(collector):
    """All that came, by name."""
    found = {}
    for data in list(collector.taken):
        for resource in proto.ExportTraceServiceRequest.FromString(data).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found.setdefault(span.name, []).append(span)
    return found


def test_a_request_is_traced_with_what_was_predicted_and_without_its_prompt(server, collector):
    theirs = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    status, _ = posted(server, asking(server, "Name a colour of the rainbow."), traceparent=(
        f"00-{theirs[0]}-{theirs[1]}-01"))  # fmt: skip
    assert status == 200

    def of_it(name):
        return [each for each in spans(collector).get(name, ()) if each.trace_id.hex() == theirs[0]]

    until(lambda: of_it(SPAN) and of_it("llm_request"))
    [ours], [vllms] = of_it(SPAN), of_it("llm_request")
    assert ours.parent_span_id.hex() == theirs[1] and vllms.parent_span_id == ours.span_id
    told = {each.key: each.value.int_value for each in ours.attributes}
    assert told.keys() == {"ssjf.priority", "ssjf.predicted_tokens"}
    assert told["ssjf.priority"] // 1000 == told["ssjf.predicted_tokens"] >= 1
    assert 0 < ours.end_time_unix_nano - ours.start_time_unix_nano < 600e9
    assert not any(b"rainbow" in data for data in collector.taken)
    untraced = "1" * 32
    posted(server, asking(server), traceparent=f"00-{untraced}-{theirs[1]}-00")
    posted(server, asking(server), traceparent=f"00-{'2' * 32}-{theirs[1]}-01")
    until(lambda: any(each.trace_id.hex() == "2" * 32 for each in spans(collector)["llm_request"]))
    assert not any(each.trace_id.hex() == untraced for each in spans(collector)[SPAN])


def test_prompts_of_one_token_end_no_engine(server):
    """On processors with AMX they do, now and then, where it is not kept from them."""
    with ThreadPoolExecutor(8) as threads:
        asked = [asking(server, [5 + i % 900] * (1 + i % 3), 2) for i in range(100)]
        assert {status for status, _ in threads.map(lambda b: posted(server, b), asked)} == {200}


def test_clients_that_go_leave_nothing_under_way(server):
    """In the body, while it waits, and in the middle of a stream; some reset the connection."""
    body = asking(server, tokens=500, stream=True)
    head = (
        f"POST {COMPLETIONS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {KEYS[0]}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    for i in range(30):
        with socket.create_connection(("127.0.0.1", server.port), timeout=600) as client:
            client.sendall(head + body[: len(body) // 2 if i % 3 == 0 else len(body)])
            if i % 3 == 2:
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            if i % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: counted(server, "in_flight_predicted_tokens") == 0 and waiting(server) == 0)
    assert posted(server, asking(server))[0] == 200
