"""Options of a length-aware server, and how they reach the server's process."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from ssjf.config import SERVE_PREFIX, STRICT, validated
from ssjf.errors import unknown

OVERTAKE = "none, 0 or a number from 0.01 to 86400"


class ServeOptions(BaseModel):
    """Options of ``ssjf serve``; the environment has each as ``SSJF_SERVE_NAME``."""

    model_config = STRICT | {"strict": False}  # variables are text

    proxy: str = Field(
        default="builtin", min_length=1, description="What predicts lengths: a folder.",
        json_schema_extra={"allowed": "a folder, or builtin"},
    )  # fmt: skip
    client_priority: Literal["respect", "override"] = Field(
        default="respect", description="Whether a priority that a client sets stays."
    )
    client_limit: Literal["respect", "ignore"] = Field(
        default="respect", description="Whether a client's max_tokens caps its prediction."
    )
    deadline_ms: float | None = Field(
        default=None, ge=0.1, le=60_000,
        description="How long a request waits for its prediction; none is 4 times what one takes "
        "when the server starts, at least 20.",
        json_schema_extra={"allowed": "none or a number from 0.1 to 60000"},
    )  # fmt: skip
    overtake_seconds: float | None = Field(
        default=30.0, ge=0, le=86_400,
        description="No request is overtaken by one that arrives more than so much later; "
        "0 is FCFS, none is pure SSJF.",
        json_schema_extra={"allowed": OVERTAKE},
    )  # fmt: skip
    longest_tokens: int = Field(
        default=1024, ge=1, le=10**6, description="A prediction of so many or more waits all of it."
    )
    learn: Literal["none", "calibration", "retrieval"] = Field(
        default="calibration", description="How finished requests correct predictions."
    )
    state: str = Field(default="", description="A file that keeps what was learned.")
    save_seconds: float = Field(
        default=30.0, ge=0.1, le=86_400, description="How often at most it is written."
    )
    max_state_mb: float = Field(
        default=64.0, ge=0.0001, le=10_000, description="It is written no larger."
    )
    max_body_mb: float = Field(
        default=4.0, ge=0.001, le=1000, description="A larger request is not read."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="How much is logged on standard error."
    )

    @model_validator(mode="after")
    def _check(self) -> "ServeOptions":
        if self.overtake_seconds and self.overtake_seconds < 0.01:
            raise ValueError(f"overtake_seconds is {self.overtake_seconds}; it must be {OVERTAKE}")
        if self.state and self.learn == "none":
            raise ValueError("state keeps what was learned, but learn is 'none'; leave one out")
        return self

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "ServeOptions":
        """The options of ``SSJF_SERVE_*`` variables; InputError for unknown ones and bad values."""
        fields = {f"{SERVE_PREFIX}{name.upper()}": name for name in cls.model_fields}
        given = {name: text for name, text in environ.items() if name.startswith(SERVE_PREFIX)}
        for name in given:
            if name not in fields:
                raise unknown("variable", name, fields)
        return validated(cls, {fields[name]: _value(fields[name], text)
                               for name, text in given.items()})  # fmt: skip

    def environment(self) -> dict[str, str]:
        """The inverse of ``from_environment``: a variable for each option not at its default."""
        return {
            f"{SERVE_PREFIX}{name.upper()}": "none" if value is None else str(value)
            for name, value in self
            if value != type(self).model_fields[name].default
        }


def _value(name: str, text: str) -> str | None:
    may_be_none = name in ("deadline_ms", "overtake_seconds")
    return None if may_be_none and text == "none" else text
