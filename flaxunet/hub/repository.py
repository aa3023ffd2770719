"""Makes a repository of a stored network, with a model card, on the hub or in a folder; and fetches one."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flaxunet.files import whole_folder, write_json
from flaxunet.hub import card, client, facts
from flaxunet.hub.facts import PICTURES, Facts
from flaxunet.weights import store
from flaxunet.weights.store import CONFIG, WEIGHTS, StoreError

README = "README.md"
FILES = (CONFIG, WEIGHTS, README, *PICTURES.values())


def locate(repo: str) -> Path | None:
    """Reads the name of a repository: a path that begins as one, a file:// address, or OWNER/NAME.

    Returns: its folder, or None if it is on the hub.
    Raises: StoreError for anything else.
    """
    if repo.startswith("file://"):
        parts = urlsplit(repo)
        if parts.netloc in ("", "localhost"):
            return Path(url2pathname(parts.path))
    elif repo in (".", "..") or repo.startswith(("./", "../", "~/")) or Path(repo).is_absolute():
        return Path(repo).expanduser()
    elif re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", repo, re.ASCII):
        return None
    expected = "OWNER/NAME on the Hugging Face hub, or a folder as ./DIR, /DIR or file:///DIR"
    raise StoreError(f"{repo!r}: not a repository; expected {expected}")


def push(
    model: str | Path, repo: str, *, license: str | None = None, private: bool = False, picture: bool = True
) -> tuple[str, Facts]:
    """Makes a repository of a stored network: weights, config.json, a model card, a picture of its run.

    Args:
      model: a run's folder, or one that `flaxunet.save` made.
      repo: OWNER/NAME, where files of these names are replaced in one commit; or a new folder.
      license: for the card; an identifier of the hub, such as "apache-2.0".
      private, picture: hide a repository that is made on the hub; include the run's picture of its data.
    Returns: the address or the folder; and what is known of the network.
    Raises: StoreError if the network or the name cannot be used, or the folder exists; client.HubError.
    """
    target = locate(repo)
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise StoreError(f"--license is {license!r}; expected an identifier such as apache-2.0 or cc-by-4.0")
    if target is None:
        client.check()
    else:
        _refuse_existing(target)
    stored, known = facts.read(model)
    shown = known.picture if picture else None
    name, hub = (target or Path(repo)).absolute().name, repo if target is None else None
    text = card.write(known, name=name, hub=hub, license=license, picture=shown.name if shown else None)
    with _folder(target) as folder:
        shutil.copyfile(stored.folder / WEIGHTS, folder / WEIGHTS)
        write_json(folder / CONFIG, stored.content | {"source": dict(known.source) or None})
        if shown is not None:
            shutil.copyfile(shown, folder / shown.name)
        (folder / README).write_text(text, encoding="utf-8")
        if target is None:
            return client.upload(folder, repo, private=private, old=list(PICTURES.values())), known
    return str(target), known


def pull(repo: str, out: str | Path, *, revision: str | None = None) -> Facts:
    """Fetches a repository that `push` made, whole and checked, or not at all.

    It takes config.json, the weights, the card and pictures, whatever else lies there; no code runs.

    Args:
      repo: OWNER/NAME, or a folder.
      out: the folder to be made, for `flaxunet.load`; its parents too.
      revision: a branch, a tag or a commit on the hub.
    Returns: what is known of the network.
    Raises: StoreError if the folder exists, or the files are not a stored network: of another format, with
      arrays that do not fit, or with another sha256 than config.json says; client.HubError.
    """
    origin = locate(repo)
    if origin is None:
        client.check()
    elif revision is not None:
        raise StoreError(f"--revision is {revision!r}; expected only with a repository on the hub")
    elif not origin.is_dir():
        raise StoreError(f"{repo}: no such folder")
    _refuse_existing(Path(out))
    with _folder(Path(out)) as folder:
        try:
            for files in ((CONFIG,), FILES):
                if origin is None:
                    client.download(repo, folder, revision=revision, files=files)
                    shutil.rmtree(folder / ".cache", ignore_errors=True)  # notes of huggingface_hub
                for name in files:
                    if origin is not None and (origin / name).is_file():
                        shutil.copyfile(origin / name, folder / name)
                if (folder / CONFIG).is_file():
                    store.describe(
                        folder / CONFIG
                    )  # refuses what does not fit before its weights are fetched
            return facts.read(folder)[1]
        except StoreError as error:
            raise StoreError(str(error).replace(str(folder), repo)) from None


def _refuse_existing(folder: Path) -> None:
    if os.path.lexists(folder):
        raise StoreError(f"{folder} exists; expected a new folder")


@contextlib.contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    """A folder to fill: the given one, made whole or not at all, or else a temporary one."""
    try:
        with tempfile.TemporaryDirectory() if folder is None else whole_folder(folder) as place:
            yield Path(place)
    except OSError as error:
        place = folder or "a temporary folder"
        raise StoreError(f"{place} cannot be written: {error.strerror or error}") from None
