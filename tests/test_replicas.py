"""`ssjf serve --replicas`: routers, bad input, and two real replicas of the tiny model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

import vllm_engine
from commands import process, refused
from serving_tools import CHAT, COMPLETIONS, until
from ssjf.errors import InputError
from ssjf.harness.deployment import deployment
from ssjf.harness.interpreter import python, vllm_version
from ssjf.harness.models import make
from ssjf.harness.server import LiveServer, environment, options_of
from ssjf.serving.options import ServeOptions
from ssjf.serving.replicas import replica, transport
from ssjf.serving.replicas.options import ReplicaOptions, known_routers, split_address
from ssjf.serving.replicas.router import LengthRouter
from test_vllm_server import OPENAI

NEEDED_GB = 10
WAITING = "vllm:num_requests_waiting{"


def enough_memory():
    known = Path("/proc/meminfo")
    found = known.read_text().partition("MemAvailable:")[2].split() if known.exists() else []
    return bool(found) and int(found[0]) > NEEDED_GB * 1e6


def has_ray(interpreter):
    code = "import ray.serve.request_router"
    return subprocess.run([interpreter, "-c", code], capture_output=True).returncode == 0


def routing(name, slots=2, n=3):
    """A router of Ray's kind, its replicas, and what sends a request of so many tokens."""
    made = LengthRouter.__new__(LengthRouter)
    made.initialize_state(name=name, slots=slots)
    replicas = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=f"r{i}")) for i in range(n)]
    for i, each in enumerate(replicas):
        each.replica_id = Id(f"r{i}")
    count = iter(range(1000))

    async def send(tokens=0):
        pending = SimpleNamespace(
            args=("POST", b"/", [(b"X-SSJF-Predicted-Tokens", b"%d" % tokens)] if tokens else []),
            metadata=SimpleNamespace(internal_request_id=str(next(count))),
            future=asyncio.get_running_loop().create_future(),
        )  # fmt: skip
        [[chosen]] = await made.choose_replicas(replicas[::-1], pending)
        return chosen.replica_id, pending

    return made, send


class Id(str):
    unique_id = property(str)


def chosen(name, lengths, **options):
    async def run():
        _, send = routing(name, **options)
        return [(await send(tokens))[0] for tokens in lengths]

    return asyncio.run(run())


def test_each_router_chooses_as_its_name_says():
    assert chosen("jsq", [0] * 4) == ["r1", "r2", "r0", "r1"]
    assert chosen("round-robin", [9] * 4) == ["r1", "r2", "r0", "r1"]
    assert chosen("least-work", [100, 10, 10, 10, 10]) == ["r1", "r2", "r0", "r2", "r0"]
    assert chosen("two-pool:50", [10, 90, 20, 80], n=2) == ["r0", "r1", "r0", "r1"]
    assert set(chosen("random", [0] * 50)) == set(chosen("power-of-two", [0] * 50)) == {
        "r0", "r1", "r2"}  # fmt: skip
    for name in known_routers():
        assert ReplicaOptions(model="m", router=name.replace("TOKENS", "9"))


def test_a_replica_is_charged_from_the_choice_to_the_end_or_until_the_client_gives_up():
    async def run():
        made, send = routing("jsq", n=2)
        first, one = await send(7)
        second, two = await send(7)
        two.future.cancel()
        await asyncio.sleep(0)
        assert (await send())[0] == second != first
        assert made._loads[first].tokens == 7
        made.on_request_completed(second, one.metadata.internal_request_id)  # of another: nothing
        made.on_request_completed(first, one.metadata.internal_request_id)
        made.on_request_completed(first, one.metadata.internal_request_id)
        assert (made._loads[first].requests, made._loads[first].tokens) == (0, 0)

    asyncio.run(run())


def test_metrics_are_summed_and_shares_are_not():
    text = '# TYPE a_total counter\na_total{{x="1"}} {}\n# TYPE c_perc gauge\nc_perc {}\n'
    added = transport.summed([text.format(1, 0.5), text.format(10, 0.25)]).decode()
    assert 'a_total{x="1"} 11.0' in added and "c_perc 0.5" in added
    assert added.count("# TYPE a") == 1


@vllm_engine.needed
def test_replicas_of_another_vllm_are_refused():
    assert replica.check_version(str(vllm_version()))
    with pytest.raises(InputError, match=r"has vLLM \S+ and the others have 0\.1; replicas must"):
        replica.check_version("0.1")


def test_the_address_is_that_of_all_and_the_rest_goes_to_each():
    given = ["--port", "1", "-tp", "2", "--host=::", "--max-num-seqs", "8"]
    assert split_address(given) == (["-tp", "2", "--max-num-seqs", "8"], "::", 1)
    options = ReplicaOptions(model="m", vllm_options=given[2:4], autoscaling={"max_replicas": 5})
    assert options.of_vllm == ["-tp", "2", "--scheduling-policy", "priority"]
    assert options.most_replicas == 5


BAD = [
    (["--replicas", 0], "replicas is 0; it must be at least 1"),
    (["--replicas", "two"], "'--replicas': 'two' is not a valid integer"),
    (["--router", "jsq"], "--router needs --replicas"),
    (["--replicas", 1, "--router", "mine"], "unknown router of replicas 'mine'; known: jsq, "),
    (["--replicas", 1, "--router", "lmetric"], "unknown router of replicas 'lmetric'"),
    (["--replicas", 1, "--router", "two-pool:x"], "'x' is not a finite number"),
    (["--replicas", 1, "--autoscaling", "3"], "autoscaling is '3'; it must be a JSON object"),
    (["--replicas", 1, "--port", "x"], "port is 'x'; it must be a whole number from 1 to 65535"),
    (["--replicas", 1, "--dry-run"], "--dry-run is of one server; with replicas, leave it out"),
    (["--replicas", 1, "--uds", "a"], "--uds is of one server; with replicas, leave it out"),
    (["--replicas", 1, "--ray", "127.0.0.1:9"], "no Ray cluster to run on at 127.0.0.1:9 ("),
]  # fmt: skip


@pytest.mark.parametrize(("options", "why"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_sentence(options, why):
    assert why in refused("serve", "m", *options)


def test_without_ray_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refused("serve", "m", "--replicas", 2).endswith("run pip install 'ssjf[ray]'")


def commands():
    """The command line of every process that lives, by its number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        if not vllm_engine.is_zombie(path.name):
            try:
                found[int(path.name)] = (
                    (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                )
            except OSError:
                continue
    return found


def descendants(pid):
    parents = {}
    for each in commands():
        try:
            stat = Path(f"/proc/{each}/stat").read_text()
        except OSError:
            continue
        parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(each)
    found, left = set(), [pid]
    while left:
        left += parents.get(found.add(this := left.pop()) or this, [])
    return found


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """Two replicas of one slot each, which then end with all that they started."""
    if python() is None or not has_ray(python()) or not enough_memory():
        pytest.skip(f"needs vLLM and ray[serve] in its environment, and {NEEDED_GB} GB of memory")
    model = make("tiny", tmp_path_factory.mktemp("served") / "tiny")
    options = [*options_of(deployment("cpu-tiny"), 1, model), "--replicas", "2"]
    chosen = ServeOptions(policy="ssjf", deadline_ms=60_000, save_seconds=0.1)
    server = LiveServer(str(model), options, chosen.environment())
    server.start()
    patiently(lambda: metric(server, "ssjf_replica{") == 2)  # it answers once one is up
    started = descendants(server._process.pid)
    try:
        yield server
        assert len(started) > 8
        assert server.terminate() == 0, server.log.read_text()
        started |= {pid for pid, said in commands().items() if server.model in said}
        until(lambda: not started & commands().keys())
    finally:
        server.close()


def ask(live, tokens, post=httpx.post):
    body = {"model": live.model, "prompt": "Write a long essay about railways.",
            "max_tokens": tokens, "ignore_eos": True}  # fmt: skip
    return post(f"http://127.0.0.1:{live.port}{COMPLETIONS}", json=body, timeout=600)


class Stream(threading.Thread):
    """A streamed completion; ``begun`` is set with its first part."""

    def __init__(self, live, tokens):
        super().__init__(daemon=True)
        self.live, self.tokens, self.events = live, tokens, []
        self.begun, self.stopped, self.replica = threading.Event(), threading.Event(), ""

    def run(self):
        body = {"model": self.live.model, "prompt": "Write a long essay about railways.",
                "max_tokens": self.tokens, "ignore_eos": True, "stream": True}  # fmt: skip
        url = f"http://127.0.0.1:{self.live.port}{COMPLETIONS}"
        try:
            with httpx.stream("POST", url, json=body, timeout=600) as answer:
                self.replica = answer.headers[transport.NAME]
                for line in answer.iter_lines():
                    self.events += [line.removeprefix("data: ")] if line else []
                    self.begun.set()
                    if self.stopped.is_set():
                        return
        except httpx.RemoteProtocolError:
            self.events.append("the connection was closed")


def patiently(true):
    """As ``until``, but the metrics of all replicas are not asked for all the time."""
    until(lambda: true() or time.sleep(0.3))


def metric(live, name):
    lines = live.get("/metrics").splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.slow
@vllm_engine.needed
def test_the_openai_client_learning_and_metrics_are_as_before_replicas(live):
    command = [python(), "-c", OPENAI, f"http://127.0.0.1:{live.port}/v1", live.model]
    done = subprocess.run(command, env=environment(live.model), capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["6", "6", "length", "length"]), (
        done.stderr
    )
    ended = "ssjf_learned_total", "ssjf_not_learned_total"  # of an answer without words nothing
    until(lambda: sum(metric(live, name) for name in ended) == 4)
    assert metric(live, "ssjf_learned_total") >= 2  # as usage has it
    assert metric(live, "ssjf_predictions_total") == 4
    assert metric(live, "vllm:request_success_total") == 4  # of both together
    told = [line for line in live.get("/metrics").splitlines() if line.startswith("ssjf_replica{")]
    assert len(told) == 2 and all(f'vllm="{vllm_version()}"' in line for line in told)
    assert json.loads(live.get("/v1/models"))["data"][0]["id"] == live.model


@pytest.mark.slow
@vllm_engine.needed
def test_priorities_reach_each_vllm(live):
    """While both are busy, long and short requests come: within a replica the short ones are
    answered first."""
    finished = []
    with httpx.Client(timeout=600) as client, ThreadPoolExecutor(8) as threads:

        def one(tokens):
            answer = ask(live, tokens, client.post)
            assert answer.status_code == 200, answer.text
            finished.append((answer.headers[transport.NAME], tokens))

        def asked():
            finished.clear()
            return [threads.submit(one, tokens) for tokens in [300, 300, 2, 2] * 2]

        busy, waiting = behind_busy(live, asked)
        for each in busy:
            each.stopped.set()
        for each in waiting:
            each.result()
    assert sorted(tokens for _, tokens in finished) == [2] * 4 + [300] * 4
    for name in {each.replica for each in busy}:
        here = [tokens for where, tokens in finished if where == name]
        assert here and here == sorted(here)


def behind_busy(live, ask_all):
    """A stream of each replica, and what is asked, all of which waits."""
    for _ in range(5):  # on a busy machine a stream may end before
        busy = [Stream(live, 1900) for _ in range(2)]
        for each in busy:
            each.start()
            assert each.begun.wait(600)
        assert busy[0].replica != busy[1].replica
        asked = ask_all()
        patiently(lambda asked=asked: (
            metric(live, WAITING) >= len(asked) or any(map(Future.done, asked))))  # fmt: skip
        if not any(map(Future.done, asked)):
            return busy, asked
        for each in asked:
            each.result()
    raise AssertionError("they never wait all at once")


@pytest.mark.slow
@vllm_engine.needed
def test_a_replica_that_is_killed_loses_nothing_that_had_not_begun_and_comes_back(live):
    with ThreadPoolExecutor(4) as threads:
        begun, waiting = behind_busy(live, lambda: [threads.submit(ask, live, 3) for _ in range(4)])
        alive = commands()
        servers = [pid for pid, said in alive.items() if f"cli.main serve {live.model}" in said]
        servers = [pid for pid in servers if "--replicas" not in alive[pid]]
        variables = Path("/proc", str(servers[0]), "environ").read_bytes().split(b"\0")
        assert b"GRPC_ENABLE_FORK_SUPPORT=0" in variables  # their parent's, which forked
        os.kill(min(servers), signal.SIGKILL)
        assert [each.result().status_code for each in waiting] == [200] * 4
    for each in begun:
        each.join(600)
    ends = sorted("error" in each.events[-2] or "error" in each.events[-1] for each in begun)
    assert ends == [False, True]
    broken = next(each for each in begun if "[DONE]" not in each.events)
    [error] = [json.loads(line)["error"] for line in broken.events if '"error"' in line]
    assert error["message"].startswith("ssjf: the answer broke off: the replica is gone")
    patiently(lambda: metric(live, "ssjf_replica{") == 2)
    answered = {ask(live, 2).headers[transport.NAME] for _ in range(4)}
    assert len(answered) == 2 and broken.replica not in answered
    assert httpx.post(f"http://127.0.0.1:{live.port}{CHAT}", content="{").status_code == 400


@pytest.mark.slow
@vllm_engine.needed
def test_a_model_that_cannot_be_started_is_one_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "none").mkdir()
    for _ in range(5):
        done = process("serve", tmp_path / "none", "--replicas", 1, "--port", 18765, timeout=900)
        if "did not start" in done.stderr:  # Ray waits 30 s for itself; its status may come late
            break
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("ssjf: ")]
    assert len(said) == 1 and "did not start" in said[0] and "Traceback" not in done.stderr
    until(lambda: not [said for said in commands().values() if str(tmp_path) in said])
