"""What numba keeps of the simulator's code between processes, and what is said meanwhile."""

import io
import sys

from numba import njit

from ssjf.simulator.core.compiled import forget_outdated, said


def test_compiled_code_is_forgotten_once_its_sources_change(tmp_path):
    cache = tmp_path / "kept" / "here"
    forget_outdated(cache, "one")
    kept = [cache / name for name in ("code.f-1.py311.nbi", "code.f-1.py311.1.nbc")]
    python = cache / "code.cpython-311.pyc"
    for file in [*kept, python]:
        file.touch()
    forget_outdated(cache, "one")
    assert all(file.exists() for file in kept)
    forget_outdated(cache, "two")
    assert not any(file.exists() for file in kept) and python.exists()


def test_what_cannot_be_written_is_left_alone(tmp_path):
    (tmp_path / "kept").write_text("not a folder")
    forget_outdated(tmp_path / "kept", "one")


def test_a_terminal_is_told_once_and_only_if_something_is_compiled(monkeypatch):
    for is_shown, lines in ((True, 1), (False, 0)):
        shown = io.StringIO()
        shown.isatty = lambda is_shown=is_shown: is_shown
        monkeypatch.setattr(sys, "stderr", shown)
        one, other = njit(lambda x: x + 1), njit(lambda x: x + 2)
        with said():
            assert one(1) + other(1) == 5
        with said():
            one(2)
        assert shown.getvalue().count("compiling the simulator") == lines
