"""Connectors for tests: one that checks every copy, one that fails in the middle."""

import torch

from ssjf.harness.connector import HostSwap, _keys_first
from ssjf.harness.quantise import MOST, halves


class CheckedSwap(HostSwap):
    """Fails where a block does not come back as it left, but for rounding."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._exact = {}

    def _keep(self, name, table):
        super()._keep(name, table)
        at = torch.tensor(table)
        self._exact[name] = {layer: kv[at].clone() for layer, kv in self._layers.items()}

    def _load(self, name, table):
        super()._load(name, table)
        for layer, before in self._exact.pop(name).items():
            after = self._layers[layer][torch.tensor(table[: len(before)])]
            keys_first = _keys_first(after)
            off = halves(after.float() - before.float(), keys_first).abs().amax(3)
            largest = halves(before.float(), keys_first).abs().amax(3)
            step = largest / MOST if self.bits == 8 else 0 * largest
            # half a step of rounding, and that of bfloat16 where there is any
            assert (off <= step / 2 + (step > 0) * largest * 2**-8).all(), "a copy is corrupt"


class LosingSwap(HostSwap):
    """Fails at every third copy out, and loses every fifth on its way back."""

    outs = backs = 0

    def kept(self, blocks):
        """Fails at the second layer of a copy, when the first has been made."""
        LosingSwap.outs += 1
        if LosingSwap.outs % 6 == 0:
            raise MemoryError("no host memory")
        return super().kept(blocks)

    def _load(self, name, table):
        LosingSwap.backs += 1
        if LosingSwap.backs % 5 == 0:
            self._host.pop(name, None)
        super()._load(name, table)
