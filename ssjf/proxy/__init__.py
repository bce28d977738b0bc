"""Predicted output lengths: what a length-aware policy knows of a request before it runs."""

from ssjf.proxy.predictors import known_predictors, predict

__all__ = ["known_predictors", "predict"]
