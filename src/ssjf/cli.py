"""The command line: thin, every command a few calls into the library."""

import errno
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ssjf import __version__
from ssjf.cli_serve import bench_serve, serve
from ssjf.cli_vllm import calibrate, model
from ssjf.errors import InputError, unknown

# Packages of the extra of this name.
_EXTRAS = {
    "train": ("lightgbm", "sklearn", "torch", "transformers", "onnx"),
    "proxy": ("onnxruntime", "tokenizers", "faiss"),
}
_HELP_ASKED = getattr(click.exceptions, "NoArgsIsHelpError", ())  # click 8.1 has none


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Bad input is one sentence and exit code 2, never a traceback."""
    try:
        yield
    except _HELP_ASKED:
        raise
    except (InputError, click.UsageError, OSError, ModuleNotFoundError) as error:
        click.echo(f"ssjf: {_sentence(error)}", err=True)
        sys.exit(2)


def _sentence(error: Exception) -> str:
    """What a reader needs of an error; raises it again where it is none of theirs."""
    if isinstance(error, click.UsageError):
        return error.format_message().rstrip(".")
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE or error.filename is None:
            raise error
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError):
        if not error.name or error.name.partition(".")[0] == "ssjf":
            raise error
        package = error.name.partition(".")[0]
        found = [extra for extra, packages in _EXTRAS.items() if package in packages]
        extra = found[0] if found else "notebooks"
        return f"this needs the package {error.name}; run pip install 'ssjf[{extra}]'"
    return str(error)


class _Group(click.Group):
    """A group whose every complaint is one sentence; its own groups are of its kind."""

    group_class = type

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _one_sentence():
            return super().make_context(*args, **options)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_sentence():
            return super().invoke(ctx)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ssjf")
def main() -> None:
    """Length-aware scheduling for LLM serving: simulate it, measure it, cite it."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(_finite(value), indent=1, default=str))


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for what is not a number."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_table(frame: Any) -> None:
    click.echo(frame.to_string(index=False, float_format=lambda v: f"{v:,.4g}"))


@main.command()
@click.argument("experiment")
@click.option("--jobs", default=2, show_default=True, help="Worker processes.")
@click.option("--seeds", type=int, help="Repeat with so many seeds (default: the experiment's).")
@click.option("--again", is_flag=True, help="Simulate the stored runs again and compare.")
@click.option("--profile", help="Of an experiment on vLLM: cpu-tiny, cpu-mid, gpu-1b, gpu-8b, ….")
def run(experiment: str, jobs: int, seeds: int | None, again: bool, profile: str | None) -> None:
    """Do the missing runs of EXPERIMENT; finished ones are kept.

    `all` is every simulation, `trainings` every training of a proxy, `measurements` every run on
    vLLM.
    """
    from ssjf.study import runner

    for name, value in (("jobs", jobs), ("seeds", 1 if seeds is None else seeds)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if again:
        if profile is not None:
            raise InputError("--again simulates; --profile is for runs that are measured")
        different = runner.simulate_again(experiment, jobs, seeds)
        click.echo(f"{experiment}: {len(different)} runs differ from the stored ones")
        sys.exit(1 if different else 0)
    done = runner.run(experiment, jobs, seeds, deployment=profile)
    click.echo(f"{experiment}: {len(done)} runs made, the others were there")


@main.command("list")
@click.argument("what", required=False)
def list_names(what: str | None) -> None:
    """The known experiments, policies, predictors, profiles, notebooks, claims and data sets."""
    from ssjf.study import listing

    if what is not None and what not in listing.KINDS:
        raise unknown("kind", what, listing.KINDS)
    for kind in [what] if what else listing.KINDS:
        names = listing.KINDS[kind]() or ["(none here: run ssjf in its repository)"]
        click.echo(f"{kind}:\n  " + "\n  ".join(names))


@main.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--policies", default="fcfs,sjf,ssjf,hrrn", show_default=True)
@click.option("--profile", "profile_name", default="ssjf-paper", show_default=True)
@click.option(
    "--slots", type=click.IntRange(max=10**6), help="Requests running at a time (default 256)."
)
@click.option(
    "--kv-tokens", type=click.IntRange(max=10**12), help="KV memory in tokens (default: unlimited)."
)
@click.option(
    "--memory", "memory_text", metavar="WHAT[,NAME=VALUE…]",
    help="Of a preempted request: recompute, swap, ewt or defer, then host_tokens=N, quantise=8, …",
)  # fmt: skip
@click.option("--scale", default=1.0, show_default=True, help="Arrivals so many times as fast.")
@click.option("--predictor", help="oracle, noise:0.5, …, or `column` for the trace's own.")
@click.option("--predictor-seconds", default=0.0, help="Charged before a request may start.")
@click.option("--allow-ties", is_flag=True, help="Accept requests arriving at the same instant.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--json", "as_json", is_flag=True)
def simulate(trace, policies, profile_name, slots, kv_tokens, memory_text, scale, predictor,
             predictor_seconds, allow_ties, seed, as_json) -> None:  # fmt: skip
    """What would length-aware order do to TRACE (csv, jsonl or parquet)?

    Columns: arrived_at (s), prompt_tokens, output_tokens and, if there, predicted_tokens.
    """
    from ssjf.engine.profile import profile
    from ssjf.engine.server import Server
    from ssjf.policy import policy
    from ssjf.study import what_if
    from ssjf.study.memory_option import memory_of
    from ssjf.workload.traces import load_trace

    asked = [name.strip() for name in policies.split(",")]
    chosen = [replace(policy(name), name=name) for name in asked]
    model = profile(profile_name)
    server = what_if.with_slots(Server(kv_tokens=kv_tokens), slots)
    requests = what_if.rescaled(load_trace(trace, allow_ties=allow_ties), scale)
    predictor = what_if.predictor_for(requests, predictor)
    memory = memory_of(memory_text) if memory_text else None
    table = what_if.compare(
        requests, chosen, model, server, predictor, seed, predictor_seconds, memory
    )
    rho = what_if.offered_load(requests, model, server)
    sentence = what_if.verdict(table, rho)
    if as_json:
        policies_found = table.to_dict("records")
        _print_json({"rho": rho, "predictor": predictor, "profile": model.name,
                     "policies": policies_found, "verdict": sentence})  # fmt: skip
        return
    click.echo(f"{len(requests)} requests, profile {model.name}, {server.running_slots} slots, "
               f"ρ {rho:.3f}, predictor {predictor}; times in seconds")  # fmt: skip
    _print_table(table)
    click.echo(sentence)


@main.group()
def data() -> None:
    """Public traces, lengths and texts, by name."""


@data.command("list")
@click.option("--json", "as_json", is_flag=True)
def data_list(as_json: bool) -> None:
    """All data sets, and where each is on this machine."""
    from ssjf.workload import datasets

    found = datasets.describe_all()
    if as_json:
        _print_json(found)
        return
    for each in found:
        click.echo(f"{each['name']}: {each['kind']}, {each['licence']}; "
                   f"{each['path'] or 'not here: ' + str(each['url'])}")  # fmt: skip


@data.command("get")
@click.argument("name")
@click.option("--force", is_flag=True, help="Download again.")
def data_get(name: str, force: bool) -> None:
    """Download a data set into the cache, or say how to get it."""
    from ssjf.workload import datasets

    for path in datasets.get(name, force):
        click.echo(path)


@data.command("path")
@click.argument("name")
def data_path(name: str) -> None:
    """Where a data set is."""
    from ssjf.workload import datasets

    for path in datasets.find(name):
        click.echo(path)


@data.command("describe")
@click.argument("name_or_file")
@click.option("--tokenizer", help="What counts the answers: cl100k_base, hf:FOLDER_OR_ID, ….")
@click.option("--label", help="The column of lengths (default: output_tokens).")
@click.option("--format", help="The format of the texts (default: found by its columns).")
@click.option("--json", "as_json", is_flag=True)
def data_describe(name_or_file: str, as_json: bool, **reading: str | None) -> None:
    """Rows, splits, lengths and arrivals of a data set, or of a file of texts or a trace."""
    import pandas as pd

    from ssjf.workload.describe import describe

    found = describe(name_or_file, **reading)
    if as_json:
        _print_json({"name": name_or_file} | found)
        return
    lengths = found.pop("output_tokens")
    for key, value in found.items():
        click.echo(f"{key}: {_listed(value)}")
    _print_table(pd.DataFrame([{"output_tokens": part, **row} for part, row in lengths.items()]))


def _listed(value: Any) -> str:
    """A value of a record in words: of a dictionary and of a list every part."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_listed(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value or "none")


@main.command()
@click.argument("claim_ids", nargs=-1)
@click.option("--json", "as_json", is_flag=True)
def check(claim_ids: tuple[str, ...], as_json: bool) -> None:
    """A verdict for every claim of the papers (or those named); writes results/claims.csv."""
    from ssjf.study import claims

    verdicts = claims.check(list(claim_ids))
    if not claim_ids:
        claims.write(verdicts)
    if as_json:
        _print_json(json.loads(verdicts.to_json(orient="records")))
    else:
        _print_table(
            verdicts[["claim_id", "unit", "paper_value", "value", "low", "high", "verdict"]]
        )


@main.command()
@click.argument("name")
@click.option("-p", "--parameter", "given", multiple=True, metavar="KEY=VALUE")
@click.option("--out", type=click.Path(path_type=Path), help="Where its figures go.")
def notebook(name: str, given: tuple[str, ...], out: Path | None) -> None:
    """Run one notebook strictly, with other parameters if given (then --out keeps it apart)."""
    from ssjf.study import notebooks

    values = notebooks.parse(given)
    if values and out is None:
        raise InputError("other parameters would replace the committed figures; give --out FOLDER")
    done = notebooks.run_apart(name, values, out)
    click.echo(f"{done.name}: {done.seconds:.1f} s, {done.output_path}")


@main.command()
@click.option("--jobs", default=2, show_default=True, help="Notebooks at a time.")
def report(jobs: int) -> None:
    """Level A: run every notebook, judge every claim, write the report."""
    from ssjf.study import make_report

    verdicts, index = make_report.make(jobs)
    _print_table(verdicts[["claim_id", "unit", "paper_value", "value", "low", "high", "verdict"]])
    click.echo(make_report.summary(verdicts))
    click.echo(f"report: {index}")


@main.group()
def bench() -> None:
    """Measure the package itself."""


@bench.command("simulator")
@click.option("--json", "as_json", is_flag=True)
def bench_simulator(as_json: bool) -> None:
    """Requests per second of the simulator, by policy."""
    import pandas as pd

    from ssjf.study import bench as measured

    found = measured.simulator()
    if as_json:
        _print_json(found)
    else:
        _print_table(pd.DataFrame(found))


@bench.command("proxy")
@click.option("--proxy", "name", default="builtin", show_default=True, help="Folder.")
@click.option("--json", "as_json", is_flag=True)
def bench_proxy(name: str, as_json: bool) -> None:
    """Milliseconds per prompt of a proxy model, by size of prompt and batch."""
    import pandas as pd

    from ssjf.study import bench_proxy as measured

    found = measured.proxy(name)
    if as_json:
        _print_json(found)
    else:
        _print_table(pd.DataFrame(found))


@bench.command("retrieval")
@click.option(
    "--vectors", "sizes", multiple=True, type=click.IntRange(1000, 10**7),
    help="How many are searched (default: 10,000, 100,000 and 1,000,000; minutes).",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True)
def bench_retrieval(sizes: tuple[int, ...], as_json: bool) -> None:
    """Milliseconds per search of past prompts, and how many of the nearest it finds."""
    import pandas as pd

    from ssjf.study import bench_retrieval as measured

    found = measured.retrieval(sizes or measured.SIZES)
    if as_json:
        _print_json(found)
    else:
        _print_table(pd.DataFrame(found))


@main.command()
@click.option(
    "--proxy",
    "spec_name",
    default="light",
    show_default=True,
    help="light, encoder, retrieval, … or a .toml file of your own.",
)
@click.option("--data", "data_name", required=True, help="A text data set, or a file of texts.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--tokenizer", help="Counts the answers if the data have no lengths: cl100k_base, ….")
def train(spec_name: str, data_name: str, out: Path, tokenizer: str | None) -> None:
    """Train a proxy model on texts and judge it on their test split.

    A training that was killed goes on where it was when it is asked for again.
    """
    from ssjf.study import train as training
    from ssjf.study.proxy_spec import read_spec

    card = training.train(read_spec(spec_name), data_name, out, tokenizer=tokenizer)
    click.echo(f"{out}: trained in {card['train_seconds']} s on {card['rows']['train']} prompts")
    for name, (value, *interval) in card["test"].items():
        click.echo(f"  {name}: {value}" + (f" [{interval[0]}, {interval[1]}]" if interval else ""))


@main.command()
@click.option("--proxy", "proxy_name", default="builtin", show_default=True, help="Folder.")
@click.option("--input", "source", required=True, help="jsonl, csv or parquet; - is JSONL.")
@click.option("--llm", help="Which LLM answers, for a proxy that was trained on several.")
@click.option("--json", "as_json", is_flag=True, help="One object a line, with quantiles.")
def predict(proxy_name: str, source: str, llm: str | None, as_json: bool) -> None:
    """Predict the output length of every prompt, in input order."""
    from ssjf.proxy import folder
    from ssjf.study import predicting

    proxy = folder.load(proxy_name)
    predicting.check_llm(proxy, llm)
    for found in predicting.predictions(proxy, predicting.prompts_of(source), llm):
        click.echo(json.dumps(found) if as_json else f"{found['predicted_tokens']:g}")


main.add_command(serve)
bench.add_command(bench_serve)
main.add_command(calibrate)
main.add_command(model)

if __name__ == "__main__":
    main()
