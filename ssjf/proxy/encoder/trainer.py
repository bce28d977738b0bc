"""The training loop: two phases, validation after every epoch, and a checkpoint to go on from.

A training that was killed and goes on takes the very steps it would have taken: the order of an
epoch and the dropout of a step are drawn from seeds that say which epoch and step it is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ssjf.errors import InputError
from ssjf.proxy.encoder import checkpoint
from ssjf.proxy.encoder.checkpoint import Progress
from ssjf.proxy.encoder.config import EncoderConfig
from ssjf.proxy.encoder.examples import Examples
from ssjf.proxy.encoder.forward import Forward
from ssjf.proxy.encoder.heads import HEADS, RANKERS, Scale
from ssjf.proxy.encoder.losses import loss_of
from ssjf.proxy.encoder.network import Network
from ssjf.request import IntArray

LONGEST_GRADIENT = 1.0
PHASES = ("tuning", "head")


class Trainer:
    """Trains a network on examples; ``run`` leaves it with the weights that validated best."""

    def __init__(
        self, net: Network, examples: Examples, scale: Scale, config: EncoderConfig,
        keep: Path | None,
    ):  # fmt: skip
        self.net, self.examples, self.scale, self.config = net, examples, scale, config
        self.keep = keep
        self.loss_of = loss_of(config.head, config.class_weights)
        self.outputs = HEADS[config.head].outputs(scale)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.optimizer: Any = None
        self.forward = Forward(net, examples, config)

    def run(self) -> Progress:
        """Both phases: the encoder and the head, then the head alone on a frozen encoder."""
        config = self.config
        kept = checkpoint.load(self.keep) if self.keep else None
        epochs = {"tuning": config.tuned_epochs, "head": config.epochs - config.tuned_epochs}
        for phase in PHASES:
            if kept and PHASES.index(phase) < PHASES.index(kept[0].phase):
                continue
            if epochs[phase]:
                self._phase(phase, epochs[phase], kept)
            kept = None
        return self.progress

    def _phase(self, phase: str, epochs: int, kept: Any) -> None:
        if phase == "head":
            self._freeze(kept)
        self.optimizer = torch.optim.AdamW(
            self._groups(), weight_decay=self.config.weight_decay, fused=True
        )
        if kept:
            self.progress, tensors = kept
            self.best = checkpoint.unpacked(tensors, self.net, self.optimizer)
        else:
            started = Progress(phase, best=self.progress.best, history=self.progress.history)
            self.progress = started
        each = -(-len(self.examples.train) // self.config.batch)
        at = self.progress
        bar = tqdm(total=epochs * each, initial=at.epoch * each + at.step, desc=phase, unit="step",
                   disable=None)  # fmt: skip
        with bar:
            while at.epoch < epochs and at.since_best < self.config.patience:
                self._epoch(bar, epochs * each)
        self.net.load_state_dict(self.best, strict=False)

    def _epoch(self, bar: Any, total: int) -> None:
        at, config = self.progress, self.config
        phase = PHASES.index(at.phase)
        batches = self.examples.batches(config.batch, config.head, [config.seed, phase, at.epoch])
        losses = []
        for step in range(at.step, len(batches)):
            done = at.epoch * len(batches) + step
            torch.manual_seed(int(np.random.SeedSequence([config.seed, phase, done])
                                  .generate_state(1)[0]))  # fmt: skip
            losses.append(self._step(batches[step], done, total))
            at.step = step + 1
            bar.update()
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}", tau=f"{at.best:.3f}")
            if at.step % config.checkpoint_steps == 0:
                self._save()
        self._judge(float(np.mean(losses)) if losses else None)
        at.epoch, at.step = at.epoch + 1, 0
        self._save()

    def _step(self, rows: IntArray, done: int, total: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._height(done, total)
        out = self.forward.taught(rows)
        loss = self._loss(out, rows)
        if not torch.isfinite(loss):
            kept = f"; the last good state is kept in {self.keep}" if self.keep else ""
            raise InputError(
                f"the loss is not a number at step {done + 1} of {self.progress.phase} "
                f"(learning_rate {self.config.learning_rate:g}, head_learning_rate "
                f"{self.config.head_learning_rate:g}): lower them in the spec{kept}"
            )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._tuned(), LONGEST_GRADIENT)
        self.optimizer.step()
        return float(loss.detach())

    def _height(self, done: int, total: int) -> float:
        """Of the learning rate: a linear rise, then a linear fall to zero."""
        rise = self.config.warmup * total
        return min((done + 1) / rise if rise else 1.0, (total - done) / max(total - rise, 1.0), 1.0)

    def _loss(self, out: Tensor, rows: IntArray) -> Tensor:
        at = torch.from_numpy(rows)
        draws, also = self.examples.draws[at], self.examples.also[at]
        known = ~draws.isnan().any(dim=1)
        draws, also = draws.to(out.device), also.to(out.device)
        loss = out.sum() * 0
        if known.any():
            loss = loss + self.loss_of(out[known, : self.outputs], draws[known], self.scale)
        there = ~also.isnan()
        if there.any():
            missed = (out[:, self.outputs :] - also.nan_to_num())[there]
            loss = loss + self.config.also_weight * (missed**2).mean()
        return loss

    def _freeze(self, kept: Any) -> None:
        if kept:
            self.net.load_state_dict(checkpoint.part(kept[1], "net"))
        self.forward.freeze_encoder()

    def _judge(self, loss: float | None) -> None:
        from scipy.stats import kendalltau

        at, config, rows = self.progress, self.config, self.examples.validation
        out = self.forward.judged(rows)[:, : self.outputs].astype(np.float64)
        head = HEADS[config.head]
        score = (
            out[:, 0] if config.head in RANKERS else head.decode(out, self.scale, "expected").logs
        )
        truth = self.examples.draws[torch.from_numpy(rows)].mean(dim=1).numpy()
        tau = float(np.nan_to_num(kendalltau(score, truth).statistic))
        at.history.append({"phase": at.phase, "epoch": at.epoch, "loss": loss, "tau": tau})
        at.since_best += 1
        if tau > at.best:
            at.best, at.since_best = tau, 0
            self.best = {name: each.detach().clone() for name, each in self._changing()}

    def _changing(self) -> Iterator[tuple[str, Tensor]]:
        tuned = {name for name, each in self.net.named_parameters() if each.requires_grad}
        return ((name, each) for name, each in self.net.state_dict().items() if name in tuned)

    def _groups(self) -> list[dict[str, Any]]:
        config = self.config
        parts = [(self.net.model, config.learning_rate), (self.net.head, config.head_learning_rate)]
        tuned = [([p for p in part.parameters() if p.requires_grad], rate) for part, rate in parts]
        return [{"params": each, "lr": rate, "peak": rate} for each, rate in tuned if each]

    def _tuned(self) -> list[Any]:
        return [each for group in self.optimizer.param_groups for each in group["params"]]

    def _save(self) -> None:
        if self.keep is None:
            return
        tensors = checkpoint.packed(self.net, self.best, self.optimizer)
        checkpoint.save(self.keep, self.progress, tensors)
