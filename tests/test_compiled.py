"""What numba keeps of the engine's code between processes."""

from ssjf.simulator.kernel.compiled import forget_outdated


def test_compiled_code_is_forgotten_once_any_of_its_sources_changes(tmp_path):
    caller, called = tmp_path / "a", tmp_path / "b"
    for folder in (caller, called):
        folder.mkdir()
        (folder / "code.py").write_text("x = 1\n")
    forget_outdated([caller, called])
    kept = [folder / "__pycache__" / name for folder in (caller, called)
            for name in ("code.f-1.py311.nbi", "code.f-1.py311.1.nbc")]  # fmt: skip
    for file in kept:
        file.touch()
    python = caller / "__pycache__" / "code.cpython-311.pyc"
    python.touch()
    forget_outdated([caller, called])
    assert all(file.exists() for file in kept)
    (called / "code.py").write_text("x = 2\n")
    forget_outdated([caller, called])
    assert not any(file.exists() for file in kept) and python.exists()


def test_sources_that_cannot_be_written_beside_are_left_alone(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "__pycache__").write_text("not a folder")
    forget_outdated([folder])
