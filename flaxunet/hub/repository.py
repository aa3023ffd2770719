"""A stored network and a name enter; a repository with a model card leaves; and the other way."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flaxunet.hub import card, facts
from flaxunet.hub import client as hub
from flaxunet.hub.facts import PICTURES, Facts
from flaxunet.weights import store
from flaxunet.weights.store import CONFIG, WEIGHTS, StoreError

README = "README.md"
FILES = (CONFIG, WEIGHTS, README, *PICTURES.values())


@dataclass(frozen=True)
class Place:
    """Where a repository is: in a folder, or on the hub under `name`, which is OWNER/NAME."""

    name: str
    folder: Path | None


def place(repo: str) -> Place:
    """What the words mean: a path where they begin as one or are a file:// address, else OWNER/NAME.

    Raises: StoreError for anything else.
    """
    if repo.startswith("file://"):
        parts = urlsplit(repo)
        if parts.netloc in ("", "localhost"):
            return Place(repo, Path(url2pathname(parts.path)))
    elif repo in (".", "..") or repo.startswith(("./", "../", "~/")) or Path(repo).is_absolute():
        return Place(repo, Path(repo).expanduser())
    elif re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", repo, re.ASCII):
        return Place(repo, None)
    raise StoreError(
        f"{repo!r} is no repository; accepted are OWNER/NAME on the Hugging Face hub, and folders as "
        "./DIR, /DIR or file:///DIR"
    )


def push(
    model: str | Path, repo: str, *, license: str | None = None, private: bool = False, picture: bool = True
) -> tuple[str, Facts]:
    """Makes a repository of a stored network: weights, config.json, a model card, a picture of its run.

    Args:
      model: a run's folder, or what `flaxunet.save` made.
      repo: OWNER/NAME, where files of these names are replaced in one commit; or a folder that is new.
      license: for the card; an identifier of the hub, such as "apache-2.0".
      private: hide a repository that is made on the hub.
      picture: whether the run's picture, which shows images of its data, is part of it.
    Returns: the address or the folder; and what is known of the network.
    Raises: StoreError if the network or the name cannot be used, or the folder exists; hub.HubError.
    """
    where = place(repo)
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise StoreError(
            f"--license is {license!r}; accepted is an identifier such as apache-2.0 or cc-by-4.0"
        )
    if where.folder is not None:
        _refuse_existing(where.folder)
    else:
        hub.check()
    stored, known = facts.read(model)
    shown = known.picture if picture else None
    with _made(where.folder) as part:
        name = (where.folder or Path(where.name)).absolute().name
        shutil.copyfile(stored.folder / WEIGHTS, part / WEIGHTS)
        content = stored.content | {"source": dict(known.source) or None}
        (part / CONFIG).write_text(json.dumps(content, indent=1) + "\n")
        if shown is not None:
            shutil.copyfile(shown, part / shown.name)
        text = card.write(
            known,
            name=name,
            hub=where.name if where.folder is None else None,
            license=license,
            picture=shown.name if shown else None,
        )
        (part / README).write_text(text, encoding="utf-8")
        if where.folder is None:
            return hub.upload(part, where.name, private=private, old=[*PICTURES.values()]), known
    return str(where.folder), known


def pull(repo: str, out: str | Path, *, revision: str | None = None) -> Facts:
    """Fetches a repository that `push` made, whole and checked, or not at all.

    Config.json, the weights, the card and pictures are taken, whatever else lies there; no code runs.

    Args:
      repo: OWNER/NAME, or a folder.
      out: the folder to be made, for `flaxunet.load`; its parents too.
      revision: a branch, a tag or a commit on the hub.
    Returns: what is known of the network.
    Raises: StoreError if the folder exists, or what was fetched is no stored network: of another format, with
      arrays that do not fit, or with another sha256 than config.json says; hub.HubError.
    """
    where, out = place(repo), Path(out)
    if where.folder is not None and revision is not None:
        raise StoreError(f"--revision is {revision!r}; accepted only for a repository on the hub")
    if where.folder is None:
        hub.check()
    elif not where.folder.is_dir():
        raise StoreError(f"{repo}: no such folder")
    _refuse_existing(out)
    with _made(out) as part:
        for files in ((CONFIG,), FILES):  # what does not fit is refused before its weights are fetched
            if where.folder is None:
                hub.download(where.name, part, revision=revision, files=files)
                shutil.rmtree(part / ".cache", ignore_errors=True)  # the library's notes
            else:
                _copy(where.folder, part, files)
            with _named(part, repo):
                if files == (CONFIG,) and (part / CONFIG).is_file():
                    store.describe(part / CONFIG)
        with _named(part, repo):
            known = facts.read(part)[1]
    return known


def _copy(folder: Path, part: Path, files: tuple[str, ...]) -> None:
    for name in files:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, part / name)


def _refuse_existing(folder: Path) -> None:
    if os.path.lexists(folder):
        raise StoreError(f"{folder} exists; accepted is a new folder")


@contextlib.contextmanager
def _made(folder: Path | None) -> Iterator[Path]:
    """A place to fill, which then becomes the folder, or vanishes; without a folder it vanishes anyway."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    target = folder.absolute()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        yield part
        _refuse_existing(target)  # it may have been made meanwhile
        part.rename(target)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _named(part: Path, repo: str) -> Iterator[None]:
    """An error names the repository, not the place where it is looked at."""
    try:
        yield
    except StoreError as error:
        raise StoreError(str(error).replace(str(part), repo)) from None
