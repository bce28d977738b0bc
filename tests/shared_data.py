"""The data sets in $SSJF_DATA, or in the data folder shared beside the checkout."""

import os
from pathlib import Path

import pytest

from ssjf.errors import InputError
from ssjf.workload import catalogue

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(*names):
    """The folder; the test is skipped where it, or a data set of these names, is not there."""
    folder = Path(os.environ.get("SSJF_DATA", BESIDE))
    if not folder.is_dir():
        pytest.skip(f"needs the published data sets: $SSJF_DATA or {BESIDE}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSJF_DATA", str(folder))
        try:
            for name in names:
                catalogue.find(name)
        except InputError as error:
            pytest.skip(f"needs the published data sets: {error}")
    return folder
