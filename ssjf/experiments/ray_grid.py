"""Runs as Ray tasks, one per free core; rows return to the driver, so no shared disk is needed."""

import logging
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager
from typing import Any

import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments.paths import environment
from ssjf.experiments.specs import Run

RETRIES = 3
"""How often a run whose worker was killed is restarted."""
LOCAL_STARTS = 3  # of a local cluster, to which Ray gives 30 s each
KNOCK_SECONDS = 10
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray announces that this will change
}
_ONE_TRY = {"RAY_NUM_REDIS_GET_RETRIES": "1"}  # 20 of 40 s each, by default


@contextmanager
def connected(address: str, cores: int, gpu: bool = False) -> Iterator[None]:
    """Connect to a Ray cluster for the block; a local cluster starts and ends with it.

    Parameters
    ----------
    address: of the cluster; if empty, ``$RAY_ADDRESS``, or else a local cluster of ``cores``.
    gpu: does a run need one?

    Raises
    ------
    InputError: if no cluster answers, or none of its nodes has a required GPU.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here = address == "local"
    for name, value in (_QUIET if here else _QUIET | _ONE_TRY).items():
        os.environ.setdefault(name, value)
    import ray

    options: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False} if here else {}
    try:
        for starts_left in reversed(range(LOCAL_STARTS if here else 1)):
            try:
                _knock(address)
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
                break
            except Exception as error:  # many types, even a bare Exception if Ray is slow to start
                if not starts_left:
                    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
                    raise InputError(f"no Ray cluster to run on at {address} ({reason})") from None
                ray.shutdown()
        if gpu and not ray.cluster_resources().get("GPU"):
            raise InputError("runs need a GPU, and no node of the Ray cluster has one")
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError at once if nothing listens, for which Ray itself takes minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def each(
    rows_of: Callable[[Run], pd.DataFrame], specs: list[Run], gpus: int = 0
) -> Iterator[tuple[Run, pd.DataFrame, float]]:
    """Yield runs with rows and seconds as they finish, each on one core (and ``gpus``).

    ``attrs["environment"]`` of the rows is that of the worker.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_made)
    pending = {task.remote(rows_of, spec).future(): spec for spec in specs}
    try:
        for future in as_completed(pending):
            yield pending.pop(future), *future.result()  # popped: rows are freed once written
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from None
        raise
    except RayError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"Ray gave up ({reason}); finished runs are kept: run again") from None


def _made(rows_of: Callable[[Run], pd.DataFrame], spec: Run) -> tuple[pd.DataFrame, float]:
    import ray

    node, started = platform.node(), time.perf_counter()
    try:
        rows = rows_of(spec)
    except InputError as error:  # such as a draw that this node lacks
        raise InputError(f"{error} (on node {node})") from None
    seconds = time.perf_counter() - started
    ran_on = {"ray": ray.__version__, "node": node}
    rows.attrs["environment"] = environment() | rows.attrs.get("environment", {}) | ran_on
    return rows, seconds
