"""Proxies and other predictors of output lengths, for length-aware policies."""

from ssjf.proxy.predictors import known_predictors, predict

__all__ = ["known_predictors", "predict"]
