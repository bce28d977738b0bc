"""How far true lengths lie from predicted ones: residual quantiles by band of prediction.

A proxy that predicts one number becomes a distribution by what the validation rows left over
(split conformal prediction, Mondrian by the predicted length: Vovk et al. 2005, section 4.5).
"""

from dataclasses import dataclass

import numpy as np

from ssjf.request import FloatArray

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
LEAST_OF_BAND = 30  # validation rows that the residuals of a band come from
LONGEST_TOKENS = 1e6


@dataclass(frozen=True)
class Spread:
    """Quantiles of true minus predicted logarithm in each of k bands of predicted logarithm.

    edges: shape (k - 1,), part the bands. residuals: shape (k, levels).
    """

    edges: np.ndarray
    residuals: np.ndarray

    def around(self, logs: FloatArray, levels: FloatArray | None = None) -> FloatArray:
        """Quantiles in tokens, shape (n, levels), around predicted logarithms of shape (n,).

        ``levels`` (n, levels) are logarithms of quantiles that the proxy itself predicts, by
        default its one number at every level.
        """
        base = logs[:, None] if levels is None else levels
        found = np.exp(base + self.residuals[np.searchsorted(self.edges, logs)])
        return np.clip(np.maximum.accumulate(found, axis=1), 1, LONGEST_TOKENS)


def spread(
    logs: FloatArray, draws: FloatArray, bands: int, levels: FloatArray | None = None
) -> Spread:
    """The spread of validation rows: predicted logarithms (n,), true ones (n, m), NaN unknown.

    With ``levels`` (n, levels), predicted quantiles, it is what these miss by (conformalised
    quantile regression: Romano et al. 2019). There are fewer bands where there are few rows.
    """
    bands = min(bands, max(1, len(logs) // LEAST_OF_BAND))
    edges = np.quantile(logs, np.arange(1, bands) / bands)
    band = np.searchsorted(edges, logs)
    base = np.repeat(logs[:, None], len(LEVELS), axis=1) if levels is None else levels
    # Where many predictions are equal a band may be empty: it gets the residuals of all.
    parts = [band == k if (band == k).any() else slice(None) for k in range(bands)]
    return Spread(edges, np.stack([_missed(draws[rows], base[rows]) for rows in parts]))


def _missed(draws: FloatArray, base: FloatArray) -> FloatArray:
    """Of each level, the quantile at that level of true minus predicted."""
    misses = [np.nanquantile(draws - base[:, [i]], level) for i, level in enumerate(LEVELS)]
    return np.array(misses)


def tokens(logs: FloatArray) -> FloatArray:
    """Predicted logarithms as lengths in tokens."""
    return np.clip(np.exp(logs), 1, LONGEST_TOKENS)
