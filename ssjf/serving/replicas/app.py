"""The Ray Serve application: an ingress that predicts, before replicas of vLLM.

``ssjf serve MODEL --replicas N`` runs it, and so does a RayService of KubeRay, or anything else
that takes an import path (``ssjf.serving.replicas.app:build``).
"""

import re
import signal
from contextlib import suppress
from typing import Any, cast

from pydantic import ValidationError
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from ssjf.errors import InputError, unknown
from ssjf.harness.interpreter import required, vllm_version
from ssjf.serving import predictor
from ssjf.serving.middleware import Middleware
from ssjf.serving.openai import Application
from ssjf.serving.options import ServeOptions
from ssjf.serving.replicas.options import ReplicaOptions
from ssjf.serving.replicas.replica import Replica
from ssjf.serving.replicas.route import Route, listening
from ssjf.serving.replicas.router import LengthRouter
from ssjf.serving.replicas.transport import ADDRESS, Replicas

NAME = "ssjf"
ALL = 1_000_000  # requests at a time: they must wait in vLLM, where priorities count
HEALTH_CHECK_SECONDS, STOPPING_SECONDS = 2.0, 20.0
ENDING = (signal.SIGINT, signal.SIGTERM)
# A replica forks to start vLLM. In the child gRPC would start its threads again, and they may crash
# it before it has become vLLM.
SAFE_FORK = {"GRPC_ENABLE_FORK_SUPPORT": "0"}


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
        transport = Replicas(self._replicas, self._wait_seconds)
        route = Route([ADDRESS], self._wait_seconds, transport)
        return Middleware(route, self._options, predictor.load(self._options, self._slots))


def build(options: ReplicaOptions) -> serve.Application:
    """Return the application; InputError if this machine has no vLLM or options are wrong."""
    version = required(vllm_version())
    scaled: dict[str, Any] = {"num_replicas": options.replicas}
    if options.autoscaling is not None:
        for name in options.autoscaling.keys() - AutoscalingConfig.model_fields.keys():
            raise unknown("key of autoscaling", name, AutoscalingConfig.model_fields)
        first = {"initial_replicas": options.replicas, "min_replicas": 1}
        scaled = {"autoscaling_config": first | options.autoscaling}
    try:
        replica: Any = serve.deployment(
            name="vllm", max_ongoing_requests=ALL,
            request_router_config=RequestRouterConfig(
                request_router_class=cast(Any, LengthRouter),
                request_router_kwargs={"name": options.router, "slots": options.slots},
            ),
            ray_actor_options={"num_cpus": 1, "num_gpus": options.gpus,
                               "runtime_env": {"env_vars": SAFE_FORK}},
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

    is_local: the cluster is ours alone, and Serve may be shut down. InputError if the address is
    taken or a replica does not start.
    """
    application = build(options)
    listening(host, port).close()
    try:
        for number in ENDING:
            signal.signal(number, signal.default_int_handler)
        serve.start(http_options={"host": host, "port": port})
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        serve.run(application, name=NAME, logging_config=quiet)
        print(f"http://{host}:{port} before {options.replicas} replicas of {options.model}, "
              f"router {options.router}", flush=True)  # fmt: skip
        while True:
            signal.pause()
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        raise InputError(_first(error)) from None
    finally:
        for number in ENDING:  # a second one must not stop the shutdown half way
            signal.signal(number, signal.SIG_IGN)
        serve.shutdown() if is_local else serve.delete(NAME)


def _first(error: Exception) -> str:
    """Return our own sentence from Ray's traceback or status, else the traceback's first line."""
    texts = [str(error)]
    with suppress(Exception):  # the application may be gone
        states = serve.status().applications[NAME].deployments.values()
        texts += [state.message for state in states]
    ours = re.findall(r"InputError.*?: (.*)", "\n".join(texts))
    first = str(error).strip().partition("\n")[0].rstrip()
    return ours[-1] if ours else first or "Ray Serve failed"
