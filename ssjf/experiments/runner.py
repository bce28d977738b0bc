"""Makes the missing runs of an experiment: finished runs are skipped, killed ones restarted."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

import pandas as pd
from tqdm import tqdm

from ssjf.errors import InputError
from ssjf.experiments import draws, ray_grid, store
from ssjf.experiments.grid import experiment, experiments
from ssjf.experiments.runs import (
    alise,
    answers,
    arena,
    chats,
    cluster,
    natural,
    published,
    replicas,
    server,
    steady,
    training,
    vllm,
)
from ssjf.experiments.runs.soak import run as soak
from ssjf.experiments.specs import ArenaRun, Run, TrainingRun

ROWS: dict[str, Callable[[Any], pd.DataFrame]] = {
    "published": published.rows,
    "simulator": steady.rows,
    "arena": arena.rows,
    "cluster": cluster.rows,
    "training": training.predictions,
    "cost": training.costs,
    "latency": training.latencies,
    "vllm": vllm.rows,
    "vllm-steps": vllm.steps,
    "vllm-anatomy": vllm.anatomy,
    "vllm-swap": vllm.swapping,
    "answers": answers.rows,
    "vllm-natural": natural.rows,
    "serve-chats": chats.rows,
    "natural": natural.rows,
    "serve-load": server.rows,
    "serve-replicas": replicas.rows,
    "soak": soak.rows,
    "alise-curve": alise.curve,
    "alise-limit": alise.limits,
}
"""The function that makes the rows, by engine."""
MEASURED = ("vllm-steps", "vllm", "vllm-anatomy", "vllm-swap", "serve-load", "serve-replicas")
ONE_BY_ONE = ("training", "cost", "latency", "answers", "vllm-natural", "serve-chats", "soak",
              *MEASURED)  # fmt: skip
"""Engines whose runs need earlier runs, or an otherwise idle machine."""
GROUPS = {
    "all": ("published", "simulator", "arena", "cluster", "natural", "alise-curve", "alise-limit"),
    "trainings": ("training",),
    "measurements": MEASURED,
    "answers": ("answers", "vllm-natural", "serve-chats"),
}
"""Groups of runs by engine: those that any machine can simulate, those that need the texts, vLLM,
or both and a real model."""


def execute(spec: Run) -> pd.DataFrame:
    """Make all rows of a run: one per repetition, or per request, as ``detail`` says."""
    return ROWS[spec.engine](spec)


def run(
    name: str,
    jobs: int = 1,
    seeds: int | None = None,
    deployment: str | None = None,
    ray: str | None = None,
) -> list[str]:
    """Do all missing runs of an experiment or of one of ``GROUPS``; return their ids.

    Parameters
    ----------
    deployment: deployment for runs on vLLM, instead of the experiment's.
    ray: address of a cluster (see ``ray_grid.connected``), instead of processes on this machine.
    """
    specs = _specs(name, seeds, deployment)
    store.sweep_temporary({spec.experiment for spec in specs})
    missing = [spec for spec in specs if not store.is_finished(spec)]
    _prepare(missing)
    alone = [spec for spec in missing if spec.engine in ONE_BY_ONE]
    others = [spec for spec in missing if spec.engine not in ONE_BY_ONE]
    work = _here(others, alone, jobs) if ray is None else _on_ray(others, alone, jobs, ray)
    with closing(work), tqdm(total=len(specs), desc=name, unit="run", disable=None) as bar:
        bar.update(len(specs) - len(missing))
        for _ in work:
            bar.update()
    return [store.digest(spec) for spec in missing]


def _here(others: list[Run], alone: list[Run], jobs: int) -> Generator[None]:
    yield from _each(_do, others, jobs)
    yield from map(_do, alone)


def _on_ray(others: list[Run], alone: list[Run], jobs: int, address: str) -> Generator[None]:
    """Do independent runs on the cluster, then the others one by one in this process.

    A node may lack the earlier runs and proxies that those need. Runs of vLLM on a GPU go to the
    cluster too, one at a time.
    """
    if not others + alone:
        return
    on_gpu = [_on_gpu(spec) and not isinstance(spec, TrainingRun) for spec in alone]
    with ray_grid.connected(address, jobs, any(on_gpu)):
        for made in ray_grid.each(execute, others):
            store.save(*made)
            yield
        for spec, remote in zip(alone, on_gpu, strict=True):
            if remote:
                store.save(*next(ray_grid.each(execute, [spec], gpus=1)))
            else:
                _do(spec)
            yield


def _specs(name: str, seeds: int | None, deployment: str | None = None) -> list[Run]:
    if name not in GROUPS:
        return experiment(name).specs(seeds, deployment)
    everything = [spec for each in experiments().values() for spec in each.specs(seeds)]
    wanted = [spec for spec in everything if spec.engine in GROUPS[name] and not _on_gpu(spec)]
    return sorted(wanted, key=lambda spec: GROUPS[name].index(spec.engine))


def _on_gpu(spec: Run) -> bool:
    """Does a run need a GPU? Such runs start only by the name of their experiment."""
    if isinstance(spec, TrainingRun):
        return spec.proxy.get("config", {}).get("device") == "cuda"
    return str(getattr(spec, "deployment", "")).startswith("gpu-")


def _prepare(specs: list[Run]) -> None:
    """Make the draws first, so that parallel runs only read them."""
    for spec in specs:
        workload = spec.workload
        pool = getattr(workload, "pool", None)
        options = workload.as_json() if pool is None else pool.as_json()
        if options.get("draw") in draws.KINDS:
            draws.draw(workload.draw_options() if pool is None else options)


def _do(spec: Run) -> None:
    started = time.perf_counter()
    rows = execute(spec)
    store.save(spec, rows, time.perf_counter() - started)


def _each(work: Callable[[Run], Any], specs: list[Run], jobs: int) -> Iterator[Any]:
    return map(work, specs) if jobs == 1 else _in_parallel(work, specs, jobs)


def _in_parallel(work: Callable[[Run], Any], specs: list[Run], jobs: int) -> Iterator[Any]:
    """Yield results in the order in which they finish."""
    # "spawn": a forked child would inherit the locks of numba's and arrow's threads.
    with ProcessPoolExecutor(jobs, get_context("spawn"), end_with_the_parent) as pool:
        with _interrupts_held_back():  # workers start at the first submit and inherit the mask
            futures = [pool.submit(work, spec) for spec in specs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed (out of memory?); finished runs are kept: run again"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes started in this block never see an interrupt, not even while they import."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_the_parent() -> None:
    """End this process when its parent is killed."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def enter(specs: list[ArenaRun], jobs: int = 1) -> pd.DataFrame:
    """Make the rows of entries to the arena; existing ones are kept."""
    _prepare([*specs])
    parts = _each(_entered, [*specs], jobs)
    bar = tqdm(parts, "arena", len(specs), unit="run", disable=None)
    return pd.concat([*bar], ignore_index=True)


def _entered(spec: Any) -> pd.DataFrame:
    return arena.entered(spec)


def simulate_again(name: str, jobs: int = 1, seeds: int | None = None) -> list[str]:
    """Repeat every run of an experiment (or of ``all``); return the ids of runs that differ."""
    specs = _specs(name, seeds)
    ids = _each(_differs, specs, jobs)
    return sorted(filter(None, tqdm(ids, f"{name} again", len(specs), unit="run", disable=None)))


def _differs(spec: Run) -> str | None:
    """Return the id of a stored run if repeating it gives other rows.

    Processors and library versions may differ in rounding.
    """
    stored = store.load(spec).drop(columns="run_id")
    try:
        pd.testing.assert_frame_equal(stored, execute(spec), rtol=1e-5, atol=1e-6)
    except AssertionError:
        return store.digest(spec)
    return None
