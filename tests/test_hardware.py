"""What a processor can do is read off the system, and stands beside every raw run."""

import pytest

from ssjf import hardware
from ssjf.experiments.paths import environment

X86 = "model name\t: A Processor\nflags\t\t: fpu avx2 avx512f amx_bf16\nflags\t\t: fpu avx2\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 sve\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [(X86, ["avx2", "avx512f", "amx_bf16"]), (ARM, ["asimd", "bf16", "sve"]), ("", [])],
)
def test_instruction_sets_are_those_of_the_system(text, found):
    assert hardware.instruction_sets(text) == found


def test_a_processor_is_called_as_its_maker_does():
    assert hardware.processor(X86) == "A Processor"


def test_raw_runs_say_which_instruction_sets_they_had():
    assert environment()["instruction_sets"] == hardware.instruction_sets()
    assert environment()["processor"] == hardware.processor()
