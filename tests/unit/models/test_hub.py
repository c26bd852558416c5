"""Names on the hub, with and without a network, against a small hub of our own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from marslora.core import hub as core_hub
from marslora.core.errors import ModelError
from marslora.core.spec import ModelSpec
from marslora.models import _hub, loading
from tests.helpers.tiny_models import build

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache, and nothing known of any hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(core_hub, "_checked", {})


@pytest.fixture
def silent_hub(monkeypatch):
    """An address where somebody listens and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield


@pytest.fixture
def no_hub(monkeypatch):
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)


class Hub(BaseHTTPRequestHandler):
    """Serves one model's configuration, and knows no other file."""

    config = b"{}"

    def do_HEAD(self):
        found = self.path == "/tiny/llava/resolve/main/config.json"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(self.config) if found else 0))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"1"' if found else "")
        self.send_header("X-Error-Code", "" if found else "EntryNotFound")
        self.end_headers()
        return found

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(self.config)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    """The address of a hub that has ``tiny/llava``."""
    Hub.config = json.dumps(build("llava")[0].config.to_dict()).encode()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def cached(config):
    """Put ``tiny/llava`` in the cache; its folder there."""
    repository = os.path.join(constants.HF_HUB_CACHE, "models--tiny--llava")
    folder = os.path.join(repository, "snapshots", COMMIT)
    os.makedirs(folder)
    os.makedirs(os.path.join(repository, "refs"))
    for path, text in (
        (os.path.join(repository, "refs", "main"), COMMIT),
        (os.path.join(folder, "config.json"), config),
    ):
        with open(path, "w") as file:
            file.write(text)
    return folder


@pytest.mark.usefixtures("silent_hub")
def test_without_a_network_an_unknown_name_fails_within_three_seconds():
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"`no-such/model` is neither a folder here nor in the hub's cache.*answer"):
        loading.describe(ModelSpec(path="no-such/model"))
    assert time.monotonic() - started < 3


@pytest.mark.usefixtures("no_hub")
def test_an_error_of_the_connection_is_told_on_one_line():
    with pytest.raises(ModelError, match=r"cannot be reached \(.*refused.*\)\. Name a folder") as error:
        loading.describe(ModelSpec(path="gpt2"))
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("no_hub")
def test_without_a_network_a_cached_model_is_read_from_the_cache():
    folder = cached(json.dumps(build("llava")[0].config.to_dict()))
    assert _hub.resolve_hub_name("tiny/llava") == folder
    found = loading.describe(ModelSpec(path="tiny/llava"))
    assert [part.name for part in found.parts] == ["vision", "projector", "language"]


def test_offline_by_wish_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(core_hub, "get_session", None)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        _hub.resolve_hub_name("no-such/model")


def test_what_cannot_be_a_name_is_not_sought():
    with pytest.raises(ModelError, match="nor a name on the hub"):
        _hub.resolve_hub_name("my model!")


def test_with_a_network_the_name_is_left_to_the_hub(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    cached("{}")
    assert _hub.resolve_hub_name("tiny/llava") == "tiny/llava"
    assert _hub.resolve_hub_name("no-such/model") == "no-such/model"


def test_a_wrong_place_is_said_without_torch(tmp_path):
    code = "import sys, marslora; marslora.inspect(model=sys.argv[1])"
    wrong = "import sys; sys.modules['torch'] = None; " + code
    done = subprocess.run([sys.executable, "-c", wrong, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "is not a model folder: it has no config.json" in done.stderr


@pytest.mark.slow
def test_a_model_is_described_from_the_hub(hub, tmp_path):
    code = "from marslora import inspect; print(*(part.name for part in inspect(model='tiny/llava').parts))"
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["vision", "projector", "language"], done.stderr
