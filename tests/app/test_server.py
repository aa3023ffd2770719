"""The server's address, and what Gradio may not do."""

import os
from pathlib import Path

import pytest

from flaxunet.app import server
from tests.support.imports import importers


def test_an_address_is_bound_or_refused_with_one_line():
    with server.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert server.url("0.0.0.0", listening) == f"http://127.0.0.1:{port}"
        assert server.url("::1", listening) == f"http://[::1]:{port}"
        listening.listen()
        with pytest.raises(
            server.ServerError, match=f"^127.0.0.1, port {port}: Address already in use; expected"
        ):
            server.listen("127.0.0.1", port)
    for host, port, reason in (("127.0.0.1", 70000, "--port is 70000"), ("no such host", 0, "--host is")):
        with pytest.raises(server.ServerError, match=reason):
            server.listen(host, port)


def test_gradio_is_kept_quiet_and_the_environment_restored(monkeypatch):
    monkeypatch.setenv("GRADIO_SHARE", "True")
    before = dict(os.environ)
    with server.quiet_gradio():
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == os.environ["GRADIO_SHARE"] == "False"
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        (folder / "kept").mkdir()
    assert not folder.exists()
    assert dict(os.environ) == before


def test_gradio_is_imported_by_two_files():
    assert importers("gradio") == {"flaxunet/app/page.py", "flaxunet/app/server.py"}
