"""What numba keeps of the simulator's code between processes, and what is said meanwhile."""

import io
import sys

from numba import config, njit

from ssjf.simulator.core import compiled


def double(x):
    return 2 * x


def test_compiled_code_is_kept_until_any_of_the_sources_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    kept = []
    for sources in ("one", "one", "two", "two"):
        monkeypatch.setattr(compiled, "checksum", lambda folder, sources=sources: sources)
        function = compiled.entry(double)
        assert function(2) == 4
        kept.append(sum(function.stats.cache_hits.values()))
    assert kept == [0, 1, 0, 1]


def test_the_checksum_is_of_every_source(tmp_path):
    sums = set()
    for name in ("a.py", "b.py", "b.py", "no_source.txt"):
        with (tmp_path / name).open("a") as file:
            file.write("x")
        sums.add(compiled.checksum(tmp_path))
    assert len(sums) == 3


def test_a_terminal_is_told_once_and_only_if_something_is_compiled(monkeypatch):
    for is_shown, lines in ((True, 1), (False, 0)):
        shown = io.StringIO()
        shown.isatty = lambda is_shown=is_shown: is_shown
        monkeypatch.setattr(sys, "stderr", shown)
        one, other = njit(lambda x: x + 1), njit(lambda x: x + 2)
        with compiled.announced():
            assert one(1) + other(1) == 5
        with compiled.announced():
            one(2)
        assert shown.getvalue().count("compiling the simulator") == lines
