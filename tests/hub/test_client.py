"""The hub answers through its own library; what it refuses is one line."""

import inspect
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flaxunet.__main__ import main
from flaxunet.cli.pull import Pull
from flaxunet.hub import client, repository
from flaxunet.weights.store import CONFIG, WEIGHTS, StoreError
from tests.support.imports import importers
from tests.support.stored_run import card_of, left_in, make_run


class Hub:
    """Keeps what is uploaded, and gives it back."""

    def __init__(self, tmp_path, monkeypatch):
        import huggingface_hub

        self.calls, self.folder = [], tmp_path / "hub"
        for name in ("create_repo", "upload_folder", "snapshot_download"):
            real = getattr(huggingface_hub, name)
            monkeypatch.setattr(huggingface_hub, name, self.checked(name, inspect.signature(real)))

    def checked(self, name, signature):
        """A call that the installed library would not take is an error here as well."""

        def call(*args, **options):
            given = signature.bind(*args, **options).arguments
            self.calls.append((name, given))
            return getattr(self, name)(**given)

        return call

    def create_repo(self, repo_id, **_):
        return f"https://hub/{repo_id}"

    def upload_folder(self, folder_path, **_):
        shutil.copytree(folder_path, self.folder)

    def snapshot_download(self, local_dir, allow_patterns, **_):
        local_dir.joinpath(".cache").mkdir(exist_ok=True)
        for name in allow_patterns:
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, local_dir / name)


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    return Hub(tmp_path, monkeypatch)


def test_push_and_pull_by_the_hub(tmp_path, fake_hub, capsys):
    run = make_run(tmp_path / "run")
    assert main(["push", str(run), "owner/name", "--private", "--license", "mit"]) == 0
    assert (
        capsys.readouterr().out
        == "https://hub/owner/name\npredictions.png is part of it: it shows images of Set *one*\n"
    )
    (_, created), (_, uploaded) = fake_hub.calls
    assert created == {"repo_id": "owner/name", "repo_type": "model", "private": True, "exist_ok": True}
    assert uploaded["repo_id"] == "owner/name"
    assert set(uploaded["delete_patterns"]) == {"predictions.png", "validation.png"}
    assert "python -m flaxunet pull owner/name --out name" in card_of(fake_hub.folder)[1]
    (fake_hub.folder / "evil.py").write_text("raise SystemExit")

    assert main(["pull", "owner/name", "--out", str(tmp_path / "got"), "--revision", "v1"]) == 0
    assert "owner" not in capsys.readouterr().err
    asked = [given for name, given in fake_hub.calls if name == "snapshot_download"]
    assert [given["allow_patterns"][0] for given in asked] == [CONFIG, CONFIG]
    assert len(asked[0]["allow_patterns"]) == 1
    assert {given["revision"] for given in asked} == {"v1"}
    assert left_in(tmp_path / "got") == ["README.md", CONFIG, WEIGHTS, "predictions.png"]


def test_a_foreign_network_is_refused_before_its_weights_are_fetched(tmp_path, fake_hub):
    fake_hub.folder.mkdir()
    (fake_hub.folder / CONFIG).write_text('{"model_type": "bert"}')
    with pytest.raises(StoreError, match=r"^owner/name/config.json does not describe a network"):
        repository.pull("owner/name", tmp_path / "got")
    assert len(fake_hub.calls) == 1
    assert not (tmp_path / "got").exists()


@pytest.fixture
def answering(monkeypatch):
    """A function that makes the hub a server on this machine that answers everything with a code."""
    constants = pytest.importorskip("huggingface_hub.constants")
    servers = []

    def start(code, **headers):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(code)
                for name, value in {**headers, "content-length": "0"}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            do_HEAD = do_POST = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        point(f"http://127.0.0.1:{servers[-1].server_port}")

    def point(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.hf_api.api.endpoint", address
        )  # of create_repo and upload_folder

    start.point = point
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("code", "headers", "problem"),
    [
        (401, {}, "does not exist, or the hub does not know you (401)"),
        (401, {"X_Error_Code": "RepoNotFound"}, "does not exist, or the hub does not know you (401)"),
        (403, {}, "may not be read or written with this token (403)"),
        (403, {"X_Error_Code": "GatedRepo"}, "is open only to users whom its owner admits"),
        (404, {}, "does not exist, or is private (404)"),
        (404, {"X_Error_Code": "RepoNotFound"}, "does not exist, or is private (404)"),
        (404, {"X_Error_Code": "RevisionNotFound"}, "has no such revision"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line(tmp_path, answering, code, headers, problem, capsys):
    answering(code, **headers)
    assert main(["pull", "owner/name", "--out", str(tmp_path / "got")]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: owner/name {problem}")
    assert line.count("\n") == 1
    assert left_in(tmp_path) == []


def test_pushing_without_a_token_says_how_to_log_in(tmp_path, answering, capsys):
    run = make_run(tmp_path / "run")
    answering(401)
    assert main(["push", str(run), "owner/name"]) == 2
    assert "log in with `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err


def test_without_a_network_one_line_says_so(tmp_path, answering, capsys):
    answering.point("http://127.0.0.1:9")
    assert main(["pull", "owner/name", "--out", str(tmp_path / "got")]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: owner/name cannot be reached: ")
    assert "refused" in line
    assert line.count("\n") == 1


def test_without_the_library_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(client.HubError, match=r"not installed: pip install .flaxunet\[hub\]"):
        Pull("owner/name", str(tmp_path / "got")).run()


def test_only_one_file_uses_huggingface_hub():
    assert importers("huggingface_hub") == {"flaxunet/hub/client.py"}
