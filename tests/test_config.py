"""A table of a file as a pydantic model: what is wrong is one sentence."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, model_validator

from ssjf.config import STRICT, validated
from ssjf.errors import InputError
from ssjf.proxy.light.training import LightConfig
from ssjf.proxy.retrieval import RetrievalConfig


class Fast(BaseModel):
    model_config = STRICT
    kind: Literal["fast"]
    speed: float = Field(gt=0)


class Slow(BaseModel):
    model_config = STRICT
    kind: Literal["slow"]


class Options(BaseModel):
    model_config = STRICT
    rows: int = Field(10, ge=1, le=99)
    rate: float = Field(1.0, ge=1e-6, le=1e6)
    mode: Literal["a", "b"] = "a"
    on: bool = True
    name: str | None = None
    sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], Field(strict=False)] = Field(
        (), max_length=2
    )
    labels: list[str] = []
    engine: Annotated[Fast | Slow, Field(discriminator="kind")] | None = None
    parts: dict[str, Slow] = {}

    @model_validator(mode="after")
    def _even(self):
        if self.rows % 2:
            raise ValueError(f"rows is {self.rows}; it must be even")
        return self


def test_a_good_table_is_a_model():
    options = validated(Options, {"rate": 2, "sizes": [1, 8], "engine": {"kind": "slow"}})
    assert (options.rate, options.sizes, options.engine) == (2.0, (1, 8), Slow(kind="slow"))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"row": 1, "rows": 0}, "unknown key of f.toml: 'row'; known: engine, labels, mode, name"),
        ({"engine": {"kind": "slow", "x": 1}}, "f.toml: unknown key engine.slow.x"),
        ({"rows": 0}, "f.toml: rows is 0; it must be at least 1"),
        ({"rows": True}, "f.toml: rows is True; it must be a whole number"),
        ({"rows": 3}, "f.toml: rows is 3; it must be even"),
        ({"rate": float("nan")}, "f.toml: rate is nan; it must be a finite number"),
        ({"rate": "1"}, "f.toml: rate is '1'; it must be a number"),
        ({"mode": "c"}, "f.toml: mode is 'c'; it must be 'a' or 'b'"),
        ({"mode": []}, "f.toml: mode is []; it must be 'a' or 'b'"),
        ({"on": 1}, "f.toml: on is 1; it must be true or false"),
        ({"name": 1}, "f.toml: name is 1; it must be text"),
        ({"sizes": [1, 9]}, "f.toml: sizes.1 is 9; it must be at most 8"),
        ({"sizes": [1, 1, 1]}, "f.toml: sizes is [1, 1, 1]; it must have at most 2 items"),
        ({"labels": [1]}, "f.toml: labels.0 is 1; it must be text"),
        ({"engine": {"kind": "fast", "speed": 0}}, "engine.fast.speed is 0; it must be above 0"),
        ({"engine": {"kind": "fast"}}, "engine.fast.speed is missing"),
        ({"engine": {"kind": "z"}}, "does not match any of the expected tags: 'fast', 'slow'"),
        ({"engine": {}}, "f.toml: engine is {}; Unable to extract tag using discriminator 'kind'"),
        ({"parts": {"p": {"kind": 1}}}, "f.toml: parts.p.kind is 1; it must be 'slow'"),
        ({"parts": 1}, "f.toml: parts is 1; it must be a table"),
    ],
    ids=str,
)
def test_a_bad_table_is_one_sentence(table, sentence):
    with pytest.raises(InputError) as error:
        validated(Options, table, "f.toml")
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_without_a_file_the_sentence_names_the_key_alone():
    with pytest.raises(InputError, match=r"^unknown key 'row'; known: engine"):
        validated(Options, {"row": 1})
    with pytest.raises(InputError, match=r"^rows is 0; it must be"):
        validated(Options, {"rows": 0})


@pytest.mark.parametrize("model", [LightConfig, RetrievalConfig])
def test_a_proxys_config_keeps_its_limits(model):
    limited = {k: s for k, s in model.model_json_schema()["properties"].items() if "minimum" in s}
    assert limited
    for key, schema in limited.items():
        for end in (schema["minimum"] - 1, schema["maximum"] + 1):
            with pytest.raises(InputError, match=f"{key} is {end}; it must be at "):
                validated(model, {key: end})
