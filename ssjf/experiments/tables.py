"""Parts of specifications: checked values, tables, and the pools that runs draw from.

A table is stored with only the keys that were set, so that a new option with a default does not
change the hash of a specification.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from ssjf.config import STRICT
from ssjf.errors import unknown
from ssjf.proxy import known_predictors
from ssjf.scheduler import policy
from ssjf.scheduler.routers import router


def checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """A validator that accepts a value unless ``check`` raises."""

    def validate(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(validate)


def _known_predictor(spec: str) -> None:
    names = {form.partition(":")[0] for form in known_predictors()}
    if spec.partition(":")[0] not in names:
        raise unknown("predictor", spec, known_predictors())


def _known_router(name: str) -> None:
    """``two-pool`` needs no number here: it splits the predicted tokens into halves."""
    router(f"{name}:1" if name == "two-pool" else name)


Number = int | float  # a whole number stays one: it is written and hashed as such
Positive = Annotated[Number, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
PolicyName = Annotated[str, checked_by(policy)]
Predictor = Annotated[str, checked_by(_known_predictor)]
RouterName = Annotated[str, checked_by(_known_router)]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class Table(BaseModel):
    """A table of a specification; unknown keys and wrong types are refused."""

    model_config = STRICT

    def as_json(self) -> dict[str, Any]:
        """The keys that were set, with their values."""
        return self.model_dump(exclude_unset=True)


class ServerTable(Table):
    """Options of a simulated server besides its slots."""

    token_budget: Count | None = None
    kv_tokens: Count | None = None


class Decoding(Table):
    """vLLM's sampling parameters, and the token limit of an answer."""

    most_tokens: Count
    temperature: Annotated[float, Field(ge=0)]
    repetition_penalty: Annotated[float, Field(ge=1)]


class LengthPool(Table):
    """Lengths and predictions of the SSJF authors' test rows, drawn with replacement."""

    draw: Literal["length-pool"]
    requests: Count
    seed: int


class ProxyTest(Table):
    """Predictions of a proxy for the test split of a text data set."""

    draw: Literal["proxy-test"]
    proxy: str
    data: str
    column: str


class PredictedPool(Table):
    """Predictions of the trainings of the experiments ``of``, by prompt."""

    draw: Literal["predicted"]
    of: list[str]
    label: str | None = None
    turn: Count | None = None


class LogNormalPool(Table):
    """Synthetic log-normal lengths in tokens, at most ``most``."""

    draw: Literal["log-normal"]
    mean: Positive
    sigma: Positive
    most: Count
    requests: Count
    seed: int


class MixedPool(Table):
    """Lengths drawn from several pools with the given shares."""

    draw: Literal["mixed"]
    of: "list[Pool]"
    shares: list[Positive]
    requests: Count
    seed: int


Pool = Annotated[
    LengthPool | ProxyTest | PredictedPool | LogNormalPool | MixedPool, Field(discriminator="draw")
]
