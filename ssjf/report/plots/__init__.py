"""Tidy frames in, matplotlib figures (and the tables beside them) out.

Nothing here computes an interval by itself: they come from ``ssjf.analysis.bootstrap``, seeded.
"""

from ssjf.analysis.estimates import against, means, replicates
from ssjf.report.plots.ablation import ablation_brief, ablation_estimates, ablation_table, together
from ssjf.report.plots.ablation_figures import ablation, ablation_throughput
from ssjf.report.plots.alise import (
    alise_ablation,
    alise_costs,
    alise_curves,
    alise_limits,
    alise_sensitivity,
    alise_table,
)
from ssjf.report.plots.anatomy import anatomy, anatomy_table
from ssjf.report.plots.boxes import length_boxes, length_table, llm_gains
from ssjf.report.plots.common import authors, basis, depths
from ssjf.report.plots.elsewhere import bands_quality, ceilings, datasets, datasets_quality
from ssjf.report.plots.heads import confusions, heads, heads_published, heads_quality, residuals
from ssjf.report.plots.machines import machines_table
from ssjf.report.plots.proxies import choice, frontier, overhead, proxies_quality, quality_gain
from ssjf.report.plots.proxy import light_proxy, proxy_gain, proxy_quality
from ssjf.report.plots.quality import agreement, captured, predictor_quality, quality_table
from ssjf.report.plots.queue import queue
from ssjf.report.plots.reliability import coverage_by_band, reliability
from ssjf.report.plots.replay import replay_table
from ssjf.report.plots.rounds import rounds, rounds_quality, rounds_table
from ssjf.report.plots.server import server_gain, server_goals, server_latency, server_table
from ssjf.report.plots.steady import steady_map, steady_table
from ssjf.report.plots.swapping import swapping_table
from ssjf.report.plots.sweeps import azure, batch_size, sweep, sweep_table
from ssjf.report.plots.tail import tail, tail_price, tail_table
from ssjf.report.plots.vllm import (
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
