"""``ssjf simulate``."""

from dataclasses import asdict, replace
from pathlib import Path

import click

from ssjf.cli.common import print_json, print_table


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--policies", default="fcfs,sjf,ssjf,hrrn", show_default=True)
@click.option("--profile", "profile_name", default="ssjf-paper", show_default=True)
@click.option("--slots", type=click.IntRange(max=10**6),
              help="Requests running at a time (default 256).")  # fmt: skip
@click.option("--kv-tokens", type=click.IntRange(max=10**12),
              help="KV memory in tokens (default: unlimited).")  # fmt: skip
@click.option(
    "--memory", "memory_text", metavar="WHAT[,NAME=VALUE…]",
    help="Of a preempted request: recompute, swap, ewt or defer, then host_tokens=N, quantise=8, …",
)  # fmt: skip
@click.option("--scale", default=1.0, show_default=True, help="Arrivals so many times as fast.")
@click.option("--predictor", help="oracle, noise:0.5, …, or `column` for the trace's own.")
@click.option(
    "--learn", is_flag=True,
    help="Predict from the column prompt, by the shipped proxy refitted to what finished before.",
)  # fmt: skip
@click.option("--predictor-seconds", default=0.0, help="Charged before a request may start.")
@click.option("--replicas", default=1, show_default=True, type=click.IntRange(max=1000),
              help="So many such machines behind a router.")  # fmt: skip
@click.option("--router", "router_name", default="jsq", show_default=True,
              help="Who gets a request; see `ssjf list routers`.")  # fmt: skip
@click.option("--contract", "contract_text", default="p99=1.05,p999=1.10", show_default=True,
              help="So many times FCFS's the tail of an advised order may be.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--json", "as_json", is_flag=True)
def simulate(trace, policies, profile_name, slots, kv_tokens, memory_text, scale, predictor,
             learn, predictor_seconds, replicas, router_name, contract_text, seed,
             as_json) -> None:  # fmt: skip
    """What would length-aware order do to TRACE (csv, jsonl or parquet)?

    Columns: arrived_at (s), prompt_tokens, output_tokens and, if there, predicted_tokens or, for
    --learn, prompt. A request is learnt from when it has finished under FCFS.
    """
    from ssjf.cli.proxy import read_prompts
    from ssjf.errors import InputError
    from ssjf.experiments import what_if
    from ssjf.scheduler import policy
    from ssjf.scheduler.routers import router
    from ssjf.simulator.cluster import simulator_of
    from ssjf.simulator.contract import Contract
    from ssjf.simulator.profile import profile
    from ssjf.simulator.server import Server, memory_of
    from ssjf.simulator.simulate import simulate as alone
    from ssjf.workload.traces import load_trace

    contract = Contract.of(contract_text)
    names = [name.strip() for name in policies.split(",")]
    chosen = [replace(policy(name), name=name) for name in names]
    model = profile(profile_name)
    server = what_if.with_slots(Server(kv_tokens=kv_tokens), slots)
    cluster = simulator_of(replicas, router(router_name), seed)
    serve = alone if replicas == 1 else cluster
    requests = what_if.rescaled(load_trace(trace), scale)
    if learn and predictor:
        raise InputError(f"--learn predicts the lengths itself; leave out --predictor {predictor}")
    if learn:
        requests = what_if.learning(requests, read_prompts(str(trace)), model, server, serve)
    predictor = what_if.predictor_for(requests, predictor)
    memory = memory_of(memory_text) if memory_text else None
    served = what_if.WhatIf(requests, model, server, predictor, seed, predictor_seconds, memory,
                            serve)  # fmt: skip
    table, rho = served.compare(chosen), served.offered_load
    advice = what_if.recommend(table, rho, served.under(contract), contract)
    equal = int((requests.arrived_at[1:] == requests.arrived_at[:-1]).sum())
    if as_json:
        cluster_of = {"replicas": replicas, "router": router_name} if replicas > 1 else {}
        print_json({"rho": rho, "predictor": predictor, "profile": model.name, **cluster_of,
                    "equal_arrivals": equal, "policies": table.to_dict("records"),
                    "recommendation": asdict(advice)})  # fmt: skip
        return
    each = f" on each of {replicas} replicas ({router_name})" if replicas > 1 else ""
    click.echo(f"{len(requests)} requests, profile {model.name}, {server.slots} slots{each}, "
               f"ρ {rho:.3f}, predictor {predictor}; times in seconds")  # fmt: skip
    if equal:
        click.echo(f"{equal} requests arrive at the time of the row above; rows keep their order")
    print_table(table)
    click.echo(advice.sentence)
