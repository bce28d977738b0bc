"""Tunes an encoder with ``transformers.Trainer``.

A killed training resumes from its last checkpoint and takes exactly the steps that it would have
taken: the order of an epoch is drawn from a seed, and checkpoints hold the random states.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback
from transformers import TrainingArguments as Arguments

from ssjf import hardware
from ssjf.errors import InputError
from ssjf.proxy.encoder.heads import HEADS, RANKERS, EncoderConfig, Scale
from ssjf.proxy.encoder.network import LOSSES, Network

PAD_TO = 8  # tokens: PyTorch keeps memory and kernels for every shape
WINDOW = 50  # batches within which rows are sorted by length, to reduce padding
EVALUATED_AT_ONCE = 128
LONGEST_GRADIENT = 1.0
STATE = "trainer_state.json"  # the last file written of a checkpoint

Example = dict[str, Any]


def collate(batch: list[Example]) -> dict[str, Tensor]:
    """Collate examples (see ``training.examples``), padded to a multiple of ``PAD_TO``."""
    lengths = np.array([len(each["ids"]) for each in batch])
    width = min(-(-int(lengths.max()) // PAD_TO) * PAD_TO, batch[0]["widest"])
    ids = np.zeros((len(batch), width), np.int64)
    for i, each in enumerate(batch):
        ids[i, : lengths[i]] = each["ids"]
    columns = {name: np.stack([each[name] for each in batch]) for name in ("draws", "also")}
    return {
        "ids": torch.from_numpy(ids),
        "mask": torch.from_numpy((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)),
        "row": torch.tensor([each["row"] for each in batch]),
    } | {name: torch.from_numpy(column.astype(np.float32)) for name, column in columns.items()}


class EpochOrder(torch.utils.data.Sampler[int]):
    """The order of rows in an epoch, drawn from the seed and the epoch.

    Batches have similar lengths, except for rankers, which compare the rows of a batch.
    """

    def __init__(self, lengths: np.ndarray, config: EncoderConfig) -> None:
        self.lengths, self.config, self.epoch = lengths, config, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng, size = np.random.default_rng([self.config.seed, self.epoch]), self.config.batch
        rows = rng.permutation(len(self))
        if self.config.head in RANKERS:
            return iter(rows.tolist())
        parts = np.split(rows, range(size * WINDOW, len(rows), size * WINDOW))
        alike = [part[np.argsort(self.lengths[part], kind="stable")] for part in parts]
        rows = np.concatenate(alike)
        full = len(rows) // size
        batches = rng.permutation(rows[: full * size].reshape(full, size))
        return iter([*batches.ravel().tolist(), *rows[full * size :].tolist()])


class _Trainer(Trainer):
    """A Trainer with our order of rows and the head's loss."""

    def __init__(
        self, net: Network, scale: Scale, config: EncoderConfig, keep: Path | None, **options: Any
    ) -> None:
        super().__init__(net, **options)
        self.keep = keep
        self.head_loss = LOSSES[config.head]
        self.outputs, self.scale, self.config = HEADS[config.head].outputs(scale), scale, config

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        lengths = np.array([len(each["ids"]) for each in self.train_dataset])  # type: ignore
        return EpochOrder(lengths, self.config)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        out = model(inputs["ids"], inputs["mask"], inputs["row"])
        draws, also = inputs["draws"], inputs["also"]
        known, there = ~draws.isnan().any(dim=1), ~also.isnan()
        loss = out.sum() * 0
        if known.any():
            loss = loss + self.head_loss(out[known, : self.outputs], draws[known], self.scale)
        if there.any():
            error = (out[:, self.outputs :] - also.nan_to_num())[there]
            loss = loss + self.config.also_weight * (error**2).mean()
        if model.training and not torch.isfinite(loss):
            kept = f"; the last good state is kept in {self.keep}" if self.keep else ""
            raise InputError(
                f"the loss is not a number at step {self.state.global_step + 1} (learning_rate "
                f"{self.config.learning_rate:g}, head_learning_rate "
                f"{self.config.head_learning_rate:g}): lower them in the spec{kept}"
            )
        return (loss, {"outputs": out}) if return_outputs else loss


class _Phases(TrainerCallback):
    """Freezes the encoder after its epochs, and saves checkpoints within an epoch."""

    def __init__(self, net: Network, rows: list[Example], config: EncoderConfig, steps: int):
        self.net, self.rows, self.config, self.steps = net, rows, config, steps

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if self.net.cache is None and round(state.epoch or 0, 6) >= self.config.tuned_epochs:
            self.net.model.requires_grad_(False)
            self.net.cache = self._vectors()

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        within = state.global_step % self.steps != 0  # at its end: saved once evaluated
        control.should_save = within and state.global_step % self.config.checkpoint_steps == 0

    @torch.no_grad()
    def _vectors(self) -> Tensor:
        """Compute the vectors of all rows once; from here on only the head changes."""
        device = next(self.net.parameters()).device
        rows = sorted(self.rows, key=lambda each: (len(each["ids"]), each["row"]))
        self.net.eval()
        cache = torch.empty(len(rows), self.net.model.config.hidden_size, device=device)
        for i in range(0, len(rows), EVALUATED_AT_ONCE):
            batch = {k: v.to(device) for k, v in collate(rows[i : i + EVALUATED_AT_ONCE]).items()}
            cache[batch["row"]] = self.net.vectors(batch["ids"], batch["mask"]).float()
        return cache


def tune(
    net: Network, rows: tuple[list[Example], list[Example]], scale: Scale, config: EncoderConfig,
    keep: Path | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train a network on (training, validation) examples and keep its best validation tau.

    ``keep`` is a folder for checkpoints, from which it resumes. Returns for each epoch: phase
    (``tuning`` or ``head``), epoch, loss and validation tau.
    """
    steps = -(-len(rows[0]) // config.batch)
    with tempfile.TemporaryDirectory() as spare:
        trainer = _Trainer(
            net, scale, config, keep, args=_arguments(config, keep or Path(spare)),
            train_dataset=rows[0], eval_dataset=rows[1], data_collator=collate,
            optimizers=_optimizer(net, config, steps),
            compute_metrics=lambda out: {"tau": _tau(out, scale, config)},
            callbacks=[_Phases(net, [*rows[0], *rows[1]], config, steps),
                       EarlyStoppingCallback(config.patience)],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(keep) if keep else None)
    return _history(trainer.state.log_history, config)


def _arguments(config: EncoderConfig, folder: Path) -> Arguments:
    arguments = Arguments(
        str(folder), num_train_epochs=config.epochs, per_device_train_batch_size=config.batch,
        per_device_eval_batch_size=EVALUATED_AT_ONCE, max_grad_norm=LONGEST_GRADIENT,
        bf16=config.precision == "bfloat16" and _has_bfloat16(config.device),
        use_cpu=config.device == "cpu", dataloader_pin_memory=config.device == "cuda",
        eval_strategy="epoch", save_strategy="epoch", logging_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="tau", greater_is_better=True,
        save_total_limit=1, restore_callback_states_from_checkpoint=True, seed=config.seed,
        label_names=["draws", "also"], remove_unused_columns=False, report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
    )  # fmt: skip
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # the batch is that of the configuration
    return arguments


def _has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return hardware.precision() == "bfloat16"


def _optimizer(net: Network, config: EncoderConfig, steps: int) -> tuple[Any, Any]:
    """AdamW; in each phase the learning rate rises linearly and then falls to zero."""
    parts = [(net.model, config.learning_rate), (net.head, config.head_learning_rate)]
    groups = [{"params": [p for p in part.parameters() if p.requires_grad], "lr": rate}
              for part, rate in parts]  # fmt: skip
    tuned = steps * config.tuned_epochs

    def height(step: int) -> float:
        total = tuned if step < tuned else steps * config.epochs - tuned
        step -= 0 if step < tuned else tuned
        rise = config.warmup * total
        return min((step + 1) / rise if rise else 1.0, (total - step) / max(total - rise, 1.0), 1.0)

    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, height)


def _tau(out: Any, scale: Scale, config: EncoderConfig) -> float:
    """Kendall's tau-b between predictions and the validation rows' mean logarithms."""
    from scipy.stats import kendalltau

    head = HEADS[config.head]
    outputs = out.predictions[:, : head.outputs(scale)].astype(np.float64)
    ranker = config.head in RANKERS
    score = outputs[:, 0] if ranker else head.decode(outputs, scale, "expected").logs
    return float(np.nan_to_num(kendalltau(score, out.label_ids[0].mean(axis=1)).statistic))


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint, if there is one."""
    whole = []
    for state in folder.glob(f"checkpoint-*/{STATE}"):
        with suppress(ValueError, KeyError):  # killed while it wrote this file
            whole.append((json.loads(state.read_text())["global_step"], str(state.parent)))
    return max(whole)[1] if whole else None


def _history(log: list[dict[str, Any]], config: EncoderConfig) -> list[dict[str, Any]]:
    losses = {each["step"]: each["loss"] for each in log if "loss" in each}
    epochs = [each for each in log if "eval_tau" in each]
    return [
        {"phase": "tuning" if epoch < config.tuned_epochs else "head", "epoch": epoch,
         "loss": losses.get(each["step"]), "tau": each["eval_tau"]}
        for epoch, each in enumerate(epochs)
    ]  # fmt: skip
