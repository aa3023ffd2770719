"""Uploads folders to the Hugging Face hub and downloads files from it; huggingface_hub finds the token."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flaxunet.files import causes, first_line

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class HubError(ValueError):
    """The hub refused a request or was not reached; the message is one line."""


def check() -> None:
    """Raises HubError if huggingface_hub is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise HubError('huggingface_hub is not installed: pip install "flaxunet[hub]"')


def upload(folder: Path, repo: str, *, private: bool, old: Sequence[str]) -> str:
    """Makes the repository if there is none, and one commit of a folder's files.

    Args:
      folder, repo: all files in the folder are sent to OWNER/NAME.
      private: hide the repository if it is made; else its owner's default holds.
      old: patterns of files that are deleted if the folder does not have them.
    Returns: the address of the repository.
    Raises: HubError.
    """
    import huggingface_hub

    with _hub_errors(repo):
        url = huggingface_hub.create_repo(repo, repo_type="model", private=private or None, exist_ok=True)
        what: dict[str, Any] = {
            "repo_id": repo,
            "repo_type": "model",
            "commit_message": "Network and card by flaxunet",
        }
        huggingface_hub.upload_folder(folder_path=folder, delete_patterns=list(old), **what)
    return str(url)


def download(repo: str, folder: Path, *, revision: str | None, files: Sequence[str]) -> None:
    """Downloads those of the named files that a repository has into a folder; raises HubError."""
    import huggingface_hub

    with _hub_errors(repo):
        huggingface_hub.snapshot_download(
            repo, repo_type="model", revision=revision, local_dir=folder, allow_patterns=list(files)
        )


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Makes one line of any error; of a chain of them, the one with the hub's answer counts."""
    from huggingface_hub import errors

    try:
        yield
    except Exception as error:
        chain = list(causes(error))
        answers = (getattr(one, "response", None) for one in chain)
        codes = [answer.status_code for answer in answers if answer is not None]

        def has(kind: type[Exception]) -> bool:
            return any(isinstance(one, kind) for one in chain)

        if has(errors.RevisionNotFoundError):
            problem = "has no such revision"
        elif has(errors.GatedRepoError):
            problem = f"is open only to users whom its owner admits: ask on its page, and {LOGIN}"
        elif has(errors.LocalTokenNotFoundError) or 401 in codes:
            problem = f"does not exist, or the hub does not know you (401): {LOGIN}"
        elif 403 in codes:
            problem = "may not be read or written with this token (403); expected one with that permission"
        elif 404 in codes:
            problem = f"does not exist, or is private (404); expected OWNER/NAME as on its page, or {LOGIN}"
        elif codes:
            problem = f"was refused by the hub ({codes[0]}): {first_line(chain[0])}"
        elif has(errors.OfflineModeIsEnabled):
            problem = "was not fetched because HF_HUB_OFFLINE is set"
        else:
            problem = f"cannot be reached: {first_line(chain[-1])}"
        raise HubError(f"{repo} {problem}") from error
