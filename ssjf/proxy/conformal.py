"""Split conformal prediction: residual quantiles by band of the predicted length.

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
class ResidualQuantiles:
    """Quantiles of true minus predicted logarithm in each of k bands of predicted logarithm.

    edges: shape (k - 1,), part the bands. residuals: shape (k, levels).
    """

    edges: np.ndarray
    residuals: np.ndarray

    def quantiles(self, logs: FloatArray, levels: FloatArray | None = None) -> FloatArray:
        """Quantiles in tokens, shape (n, levels), around predicted logarithms of shape (n,).

        ``levels`` (n, levels) are logarithms of quantiles that the proxy itself predicts, by
        default its one number at every level.
        """
        base = logs[:, None] if levels is None else levels
        quantiles = np.exp(base + self.residuals[np.searchsorted(self.edges, logs)])
        return np.clip(np.maximum.accumulate(quantiles, axis=1), 1, LONGEST_TOKENS)


NO_RESIDUALS = ResidualQuantiles(np.zeros(0), np.zeros((1, len(LEVELS))))


def fit_residuals(
    logs: FloatArray, draws: FloatArray, bands: int, levels: FloatArray | None = None
) -> ResidualQuantiles:
    """Fit residual quantiles on validation rows; fewer bands where there are few rows.

    Parameters
    ----------
    logs: predicted logarithms, shape (n,). draws: true ones, (n, m), NaN where unknown.
    levels: predicted quantiles, (n, levels), if the residuals are to be of these (conformalised
        quantile regression: Romano et al. 2019).
    """
    bands = min(bands, max(1, len(logs) // LEAST_OF_BAND))
    edges = np.quantile(logs, np.arange(1, bands) / bands)
    band = np.searchsorted(edges, logs)
    base = np.repeat(logs[:, None], len(LEVELS), axis=1) if levels is None else levels
    # Where many predictions are equal a band may be empty: it gets the residuals of all.
    parts = [band == k if (band == k).any() else slice(None) for k in range(bands)]
    residuals = [
        [np.nanquantile(draws[rows] - base[rows, i : i + 1], q) for i, q in enumerate(LEVELS)]
        for rows in parts
    ]
    return ResidualQuantiles(edges, np.array(residuals))


def tokens(logs: FloatArray) -> FloatArray:
    """Predicted logarithms as lengths in tokens."""
    return np.clip(np.exp(logs), 1, LONGEST_TOKENS)
