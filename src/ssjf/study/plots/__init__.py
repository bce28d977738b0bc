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
from ssjf.study.plots.alise import (
    alise_ablation,
    alise_costs,
    alise_curves,
    alise_limits,
    alise_sensitivity,
    alise_table,
)
from ssjf.study.plots.anatomy import anatomy, anatomy_table
from ssjf.study.plots.boxes import length_boxes, length_table, llm_gains
from ssjf.study.plots.common import authors, basis, depths
from ssjf.study.plots.elsewhere import bands_quality, ceilings, datasets, datasets_quality
from ssjf.study.plots.heads import (
    confusions,
    heads,
    heads_published,
    heads_quality,
    residuals,
)
from ssjf.study.plots.machines import machines_table
from ssjf.study.plots.proxies import (
    choice,
    frontier,
    overhead,
    proxies_quality,
    quality_gain,
)
from ssjf.study.plots.proxy import light_proxy, proxy_gain, proxy_quality
from ssjf.study.plots.quality import agreement, captured, predictor_quality, quality_table
from ssjf.study.plots.queue import queue
from ssjf.study.plots.reliability import coverage_by_band, reliability
from ssjf.study.plots.replay import replay_table
from ssjf.study.plots.rounds import rounds, rounds_quality, rounds_table
from ssjf.study.plots.server import server_gain, server_goals, server_latency, server_table
from ssjf.study.plots.steady import steady_map, steady_table
from ssjf.study.plots.swapping import swapping_table
from ssjf.study.plots.sweeps import azure, batch_size, sweep, sweep_table
from ssjf.study.plots.tail import tail, tail_price, tail_table
from ssjf.study.plots.vllm import (
    fidelity,
    fidelity_table,
    fidelity_verdict,
    step_times,
    vllm_conditions,
    vllm_devices,
    vllm_gain,
    vllm_table,
)

__all__ = [
    "ablation",
    "ablation_brief",
    "ablation_estimates",
    "ablation_table",
    "ablation_throughput",
    "against",
    "agreement",
    "alise_ablation",
    "alise_costs",
    "alise_curves",
    "alise_limits",
    "alise_sensitivity",
    "alise_table",
    "anatomy",
    "anatomy_table",
    "authors",
    "azure",
    "bands_quality",
    "basis",
    "batch_size",
    "captured",
    "ceilings",
    "choice",
    "confusions",
    "coverage_by_band",
    "datasets",
    "datasets_quality",
    "depths",
    "fidelity",
    "fidelity_table",
    "fidelity_verdict",
    "frontier",
    "heads",
    "heads_published",
    "heads_quality",
    "length_boxes",
    "length_table",
    "light_proxy",
    "llm_gains",
    "machines_table",
    "means",
    "overhead",
    "predictor_quality",
    "proxies_quality",
    "proxy_gain",
    "proxy_quality",
    "quality_gain",
    "quality_table",
    "queue",
    "reliability",
    "replay_table",
    "replicates",
    "residuals",
    "rounds",
    "rounds_quality",
    "rounds_table",
    "server_gain",
    "server_goals",
    "server_latency",
    "server_table",
    "steady_map",
    "steady_table",
    "step_times",
    "swapping_table",
    "sweep",
    "sweep_table",
    "tail",
    "tail_price",
    "tail_table",
    "together",
    "vllm_conditions",
    "vllm_devices",
    "vllm_gain",
    "vllm_table",
]
