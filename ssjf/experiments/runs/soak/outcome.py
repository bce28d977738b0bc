"""Compares what clients of a soak sent and received with what vLLM received and answered."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ssjf.experiments.runs.soak.faults import SEEN

LONG_AGO = -1000.0  # seconds: such a priority is a client's own small number


@dataclass
class Sent:
    """A request as its client saw it. ``outcome``: answered, broken or left."""

    at: float
    sample: int
    body: str
    outcome: str = ""
    status: int = 0
    answer: str = ""


@dataclass
class Sample:
    """State of the server's process just before a request was sent."""

    at_seconds: float
    life: int
    fault: str
    rss_mb: float = np.nan
    cpu_seconds: float = np.nan
    engine_cpu_seconds: float = np.nan
    metrics: dict[str, float] = field(default_factory=dict)


def outcome(
    samples: list[Sample], sent: dict[int, Sent], seen: Path, connections: int, seed: int
) -> pd.DataFrame:
    """Make the rows of a run (see ``run.rows``); ``seen`` is the file of ``faults.Faults``."""
    noted = pd.read_csv(seen, names=list(SEEN), dtype=str,
                       keep_default_na=False).set_index("i")  # fmt: skip
    known = noted.to_dict("index")
    records = [{"sample": each.sample} | compared(each, known.get(str(i)))
               for i, each in sent.items()]  # fmt: skip
    by_sample = pd.DataFrame(records).groupby("sample")
    counts = by_sample.sum().drop(columns="put_back_seconds")
    sampled = pd.DataFrame([vars(each) | each.metrics for each in samples])
    table = sampled.drop(columns="metrics").join(counts)
    table[counts.columns] = table[counts.columns].fillna(0).astype(np.int32)
    table = table.join(by_sample["put_back_seconds"].max())
    seconds = table.select_dtypes("float64").astype(np.float32)
    return table.assign(**dict(seconds.items()), x=np.float32(connections),
                        seed=np.int32(seed), run=np.int32(0))  # fmt: skip


def compared(sent: Sent, seen: dict[str, str] | None) -> dict[str, float]:
    """Classify a request by comparing it with what vLLM received and answered."""
    answered, whole = sent.outcome == "answered", seen is not None and seen["whole"] == "1"
    found = {"sent": True, "answered": answered, "refused": answered and sent.status != 200}
    found["broken"] = sent.outcome == "broken" and not whole
    found["lost"] = sent.outcome == "lost" or (sent.outcome == "broken" and whole)
    altered, later = answered, np.nan
    if answered and seen is not None:
        given = (seen["sent"], int(seen["status"]), seen["answered"])
        altered = given != (sent.body, sent.status, sent.answer)
        if given[1] == 0:  # vLLM was ended before it answered: the 500 is the web server's own
            altered = sent.status != 500 or seen["sent"] != sent.body
        later = int(seen["priority"] or 0) / 1000 - sent.at
    found |= {"altered": altered, "early": later < -0.001, "jumped": later < LONG_AGO}
    return {name: int(value) for name, value in found.items()} | {"put_back_seconds": later}
