"""Tidy frames in, matplotlib figures (and the tables beside them) out.

Nothing here computes an interval by itself: they come from ``ssjf.study.bootstrap``, seeded.
"""

from ssjf.study.estimates import against, means, replicates
from ssjf.study.plots.ablation import (
    ablation_brief,
    ablation_estimates,
    ablation_table,
    together,
)
from ssjf.study.plots.ablation_figures import ablation, ablation_throughput
from ssjf.study.plots.boxes import length_boxes, length_table, llm_gains
from ssjf.study.plots.common import authors, basis, depths
from ssjf.study.plots.proxy import light_proxy, proxy_gain, proxy_quality
from ssjf.study.plots.quality import agreement, captured, predictor_quality, quality_table
from ssjf.study.plots.queue import queue
from ssjf.study.plots.replay import replay_table
from ssjf.study.plots.steady import steady_map, steady_table
from ssjf.study.plots.sweeps import azure, batch_size, sweep, sweep_table
from ssjf.study.plots.tail import tail, tail_price, tail_table

__all__ = [
    "ablation",
    "ablation_brief",
    "ablation_estimates",
    "ablation_table",
    "ablation_throughput",
    "against",
    "agreement",
    "authors",
    "azure",
    "basis",
    "batch_size",
    "captured",
    "depths",
    "length_boxes",
    "length_table",
    "light_proxy",
    "llm_gains",
    "means",
    "predictor_quality",
    "proxy_gain",
    "proxy_quality",
    "quality_table",
    "queue",
    "replay_table",
    "replicates",
    "steady_map",
    "steady_table",
    "sweep",
    "sweep_table",
    "tail",
    "tail_price",
    "tail_table",
    "together",
]
