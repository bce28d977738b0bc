"""Fixtures that several test files share."""

import functools
import http.server
import threading

import pytest
from hypothesis import settings

settings.register_profile("quick", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile("quick")  # pytest --hypothesis-profile=thorough tries more


def pytest_collection_modifyitems(items):
    """The long files first: a worker takes a file at a time, and none should end alone."""
    items.sort(key=lambda item: not item.path.name.startswith("test_vllm"))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache and no $SSJF_DATA."""
    monkeypatch.delenv("SSJF_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ssjf"


@pytest.fixture
def served(tmp_path):
    """A folder and its URL on a local web server."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
