"""What answers when nothing alike is remembered: a small MLP on the prompt's vector."""

import warnings
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ssjf.request import FloatArray

PENALTY, BATCH, EPOCHS, PATIENCE = 1.0, 200, 50, 5


@dataclass(frozen=True)
class Mlp:
    """ReLU layers: weights of shape (inputs, outputs) and biases (outputs,), the last one's 1."""

    layers: list[tuple[np.ndarray, np.ndarray]]

    def logs(self, vectors: np.ndarray) -> FloatArray:
        """Predicted logarithms, shape (n,), of unit vectors (n, dimensions), each alone."""
        return np.array([self._log(vector) for vector in vectors], np.float64)

    def _log(self, vector: np.ndarray) -> float:
        *inner, (weights, bias) = self.layers
        found = _scaled(vector)
        for weights_, bias_ in inner:
            found = np.maximum(found @ weights_ + bias_, 0)
        return float((found @ weights + bias)[0])

    def arrays(self) -> dict[str, np.ndarray]:
        """Its layers by name."""
        named = [(f"mlp.{i}", layer) for i, layer in enumerate(self.layers)]
        return {f"{name}.{part}": each for name, layer in named
                for part, each in zip(("weights", "bias"), layer, strict=True)}  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Mlp":
        """The inverse of ``arrays``; ValueError for layers that do not follow each other."""
        count = sum(name.startswith("mlp.") for name in arrays) // 2
        layers = [(arrays[f"mlp.{i}.weights"], arrays[f"mlp.{i}.bias"]) for i in range(count)]
        sizes = [weights.shape[1] for weights, _ in layers]
        follow = all(len(after[0]) == len(layer[1]) for layer, after in pairwise(layers))
        if not follow or sizes != [len(bias) for _, bias in layers] or sizes[-1:] != [1]:
            raise ValueError("the layers of its MLP do not follow each other")
        return cls(layers)


def fitted(vectors: np.ndarray, logs: FloatArray, hidden: tuple[int, ...], seed: int) -> Mlp:
    """An MLP of least squares; a tenth of the rows says when to stop. Needs scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(
        hidden_layer_sizes=hidden, alpha=PENALTY, early_stopping=True, random_state=seed,
        batch_size=min(BATCH, len(logs)), max_iter=EPOCHS, n_iter_no_change=PATIENCE,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mean, scale = logs.mean(), max(logs.std(), 1e-6)
        model.fit(_scaled(vectors), (logs - mean) / scale)
    model.coefs_[-1] = model.coefs_[-1] * scale
    model.intercepts_[-1] = model.intercepts_[-1] * scale + mean
    parts = zip(model.coefs_, model.intercepts_, strict=True)
    return Mlp([(weights.astype(np.float32), bias.astype(np.float32)) for weights, bias in parts])


def _scaled(vectors: np.ndarray) -> np.ndarray:
    """Numbers of about 1, whatever the number of dimensions."""
    return vectors * np.sqrt(vectors.shape[-1], dtype=np.float32)
