"""Running experiments: what is finished is skipped, what was killed starts anew."""

import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import pandas as pd
from tqdm import tqdm

from ssjf.errors import InputError
from ssjf.study import draws, store
from ssjf.study.execute import execute
from ssjf.study.experiments import experiment, experiments

Spec = dict[str, Any]


def run(name: str, jobs: int = 1, seeds: int | None = None, progress: bool = True) -> list[str]:
    """Do all runs of an experiment (or of ``all``) that are missing; returns their ids."""
    names = list(experiments()) if name == "all" else [experiment(name).name]
    specs = [spec for each in names for spec in experiment(each).specs(seeds)]
    for each in names:
        store.sweep_temporary(each)
    missing = [spec for spec in specs if not store.is_finished(spec)]
    _prepare(missing)
    with tqdm(total=len(specs), desc=name, unit="run", disable=not progress) as bar:
        bar.update(len(specs) - len(missing))
        if jobs == 1:
            for spec in missing:
                _do(spec)
                bar.update()
        else:
            _in_parallel(missing, jobs, bar)
    return [store.digest(spec) for spec in missing]


def _prepare(specs: list[Spec]) -> None:
    """Make the draws first, once, so that parallel runs only read them."""
    for spec in specs:
        workload = spec["workload"]
        options = workload.get("pool", workload)
        if options.get("draw") in draws.KINDS:
            draws.draw({k: v for k, v in options.items() if k not in ("scales", "label")})


def _do(spec: Spec) -> None:
    started = time.perf_counter()
    rows = execute(spec)
    store.save(spec, rows, time.perf_counter() - started)


def _in_parallel(specs: list[Spec], jobs: int, bar: tqdm) -> None:
    # "spawn": a forked child would inherit the locks of numba's and arrow's threads.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_do, spec) for spec in specs]
        try:
            for future in as_completed(futures):
                future.result()
                bar.update()
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed (out of memory?); finished runs are kept: run again"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def simulate_again(name: str, progress: bool = True) -> list[str]:
    """Do every stored run of an experiment (or of ``all``) again; the ids that differ."""
    names = list(experiments()) if name == "all" else [experiment(name).name]
    specs = [spec for each in names for spec in experiment(each).specs()]
    different = []
    for spec in tqdm(specs, desc=f"{name} again", unit="run", disable=not progress):
        before = store.load(spec).drop(columns="run_id")
        if not _same(before, execute(spec)):
            different.append(store.digest(spec))
    return different


def _same(before: pd.DataFrame, after: pd.DataFrame) -> bool:
    """Equal up to the rounding in which processors and library versions may differ."""
    try:
        pd.testing.assert_frame_equal(before, after, rtol=1e-5, atol=1e-6)
    except AssertionError:
        return False
    return True
