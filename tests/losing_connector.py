"""A connector that fails in the middle: every third copy out, and every fifth copy back."""

from ssjf.harness.connector import HostSwap


class LosingSwap(HostSwap):
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
