"""The Ray Serve application: an ingress that predicts, before replicas of vLLM.

``ssjf serve MODEL --replicas N`` runs it, and so does whatever takes an import path
(``ssjf.serving.replicas.app:build``), as a RayService of KubeRay.
"""

import re
import signal
import socket
import threading
from contextlib import suppress
from typing import Any, cast

from pydantic import ValidationError
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from ssjf.errors import InputError, unknown
from ssjf.harness.interpreter import ABSENT, vllm_version
from ssjf.serving import predictor
from ssjf.serving.middleware import Middleware
from ssjf.serving.openai import Application
from ssjf.serving.options import ServeOptions
from ssjf.serving.replicas.options import ReplicaOptions
from ssjf.serving.replicas.replica import Replica
from ssjf.serving.replicas.route import Route
from ssjf.serving.replicas.router import LengthRouter
from ssjf.serving.replicas.transport import ADDRESS, Replicas

NAME = "ssjf"
ALL = 1_000_000  # requests at a time: whoever waits shall wait where priorities count
HEALTH_CHECK_SECONDS, STOPPING_SECONDS = 2.0, 20.0


@serve.deployment(name="ingress", max_ongoing_requests=ALL, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class Ingress:
    """The middleware, in one process for all replicas: one predictor, one learner, one router."""

    def __init__(
        self, replicas: Any, options: ServeOptions, slots: int, wait_seconds: float
    ) -> None:
        self._replicas, self._options = replicas, options
        self._slots, self._wait_seconds = slots, wait_seconds

    def __serve_build_asgi_app__(self) -> Application:
        loaded = predictor.load(self._options)
        if loaded.learner.tuner is not None:
            loaded.learner.tuner.slots = self._slots
        transport = Replicas(self._replicas, self._wait_seconds)
        route = Route([ADDRESS], self._wait_seconds, transport)
        return Middleware(route, self._options, loaded)


def build(options: ReplicaOptions) -> serve.Application:
    """The application; InputError where this machine's vLLM is absent or options are wrong."""
    version = vllm_version()
    if version is None:
        raise InputError(ABSENT)
    scaled: dict[str, Any] = {"num_replicas": options.replicas}
    if options.autoscaling is not None:
        for name in options.autoscaling.keys() - AutoscalingConfig.model_fields.keys():
            raise unknown("key of autoscaling", name, AutoscalingConfig.model_fields)
        first = {"initial_replicas": options.replicas, "min_replicas": 1}
        scaled = {"autoscaling_config": first | options.autoscaling}
    router = {"name": options.router, "slots": options.slots}
    try:
        replica: Any = serve.deployment(
            name="vllm", max_ongoing_requests=ALL,
            request_router_config=RequestRouterConfig(
                request_router_class=cast(Any, LengthRouter),
                request_router_kwargs=router,
            ),
            ray_actor_options={"num_cpus": 1, "num_gpus": options.gpus},
            health_check_period_s=HEALTH_CHECK_SECONDS, max_constructor_retry_count=1,
            graceful_shutdown_timeout_s=STOPPING_SECONDS, **scaled,
        )(Replica)  # fmt: skip
    except ValidationError as error:
        raise InputError(f"autoscaling: {error.errors()[0]['msg']}") from None
    bound = replica.bind(options.model, options.of_vllm, version, options.variables)
    slots, ingress = options.slots * options.replicas, cast(Any, Ingress)
    return ingress.bind(bound, options.serve, slots, options.wait_seconds)


def run(options: ReplicaOptions, host: str, port: int, is_local: bool) -> None:
    """Serve on the Ray cluster of this process until an interrupt or SIGTERM.

    is_local: the cluster is ours alone, and may lose its Serve. InputError where the address is
    taken or a replica does not start.
    """
    stop = threading.Event()
    application = build(options)
    _check_free(host, port)
    try:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, _interrupt)
        serve.start(http_options={"host": host, "port": port})
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        serve.run(application, name=NAME, logging_config=quiet)
        print(f"http://{host}:{port} before {options.replicas} replicas of {options.model}, "
              f"router {options.router}", flush=True)  # fmt: skip
        stop.wait()
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        raise InputError(_first(error)) from None
    finally:
        for each in (signal.SIGINT, signal.SIGTERM):  # a second one must not leave half of it
            signal.signal(each, signal.SIG_IGN)
        serve.shutdown() if is_local else serve.delete(NAME)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _first(error: Exception) -> str:
    """Our own sentence in the traceback that Ray tells, there or in its status, or else its first
    line that says more."""
    told = [str(error)]
    with suppress(Exception):  # it may be gone as well
        states = serve.status().applications[NAME].deployments.values()
        told += [each.message for each in states]
    found = re.findall(r"InputError.*?: (.*)", "\n".join(told))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (found or lines[:1] or ["Ray Serve failed"])[-1]


def _check_free(host: str, port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise InputError(f"port {port} of {host} is not to be had ({error.strerror})") from None
