"""The kinds of proxy there are. Their modules are imported when they are used: some are heavy."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Kind:
    """Where a kind keeps its parts, each as ``module:name`` below ``ssjf.proxy``."""

    config_at: str
    proxy_at: str
    train_at: str

    @property
    def config(self) -> Any:
        """The dataclass of what can be chosen of its training."""
        return _at(self.config_at)

    @property
    def proxy(self) -> Any:
        """The class of the trained proxy."""
        return _at(self.proxy_at)

    @property
    def train(self) -> Any:
        """The function that trains it (see ``training.Train``)."""
        return _at(self.train_at)


KINDS = {
    "light": Kind("light.config:LightConfig", "light.proxy:LightProxy", "light.training:train"),
    "encoder": Kind(
        "encoder.config:EncoderConfig", "encoder.proxy:EncoderProxy", "encoder.training:train"
    ),
    "retrieval": Kind(
        "retrieval.config:RetrievalConfig",
        "retrieval.proxy:RetrievalProxy",
        "retrieval.training:train",
    ),
    "tfidf-ridge": Kind(
        "baselines_config:TfidfRidgeConfig",
        "baselines_tfidf:TfidfRidgeProxy",
        "baselines_training:train_tfidf_ridge",
    ),
    "prompt-length": Kind(
        "baselines_config:PromptLengthConfig",
        "baselines:PromptLengthProxy",
        "baselines_training:train_prompt_length",
    ),
    "constant": Kind(
        "baselines_config:ConstantConfig",
        "baselines:ConstantProxy",
        "baselines_training:train_constant",
    ),
}


def _at(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f"ssjf.proxy.{module}"), name)
