"""Folders enter; repositories on the Hugging Face hub leave; and back. Tokens are its library's business."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flaxunet.files import causes, first_line

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class HubError(ValueError):
    """What the hub refused, or that it was not reached; one line."""


def check() -> None:
    """Raises HubError if huggingface_hub is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise HubError(
            "the package huggingface_hub is not installed; accepted is after pip install 'flaxunet[hub]'"
        )


def upload(folder: Path, repo: str, *, private: bool, old: Sequence[str]) -> str:
    """Makes the repository if there is none, and one commit of a folder's files.

    Args:
      folder: whose files are sent, all of them.
      repo: OWNER/NAME.
      private: whether a repository that is made is hidden from others; else it is as its owner's usually are.
      old: patterns of files that go if the folder does not have them.
    Returns: the address of the repository.
    Raises: HubError.
    """
    import huggingface_hub

    with _told(repo):
        url = huggingface_hub.create_repo(repo, repo_type="model", private=private or None, exist_ok=True)
        huggingface_hub.upload_folder(
            repo_id=repo,
            repo_type="model",
            folder_path=folder,
            commit_message="Network and card by flaxunet",
            delete_patterns=list(old),
        )
    return str(url)


def download(repo: str, folder: Path, *, revision: str | None, files: Sequence[str]) -> None:
    """Puts those of the named files that a repository has into a folder, and nothing else.

    Raises: HubError.
    """
    import huggingface_hub

    with _told(repo):
        huggingface_hub.snapshot_download(
            repo, repo_type="model", revision=revision, local_dir=folder, allow_patterns=list(files)
        )


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """Whatever goes wrong there becomes one line; of a chain of errors, the one that has the hub's answer."""
    from huggingface_hub import errors

    try:
        yield
    except Exception as error:
        chain = list(causes(error))
        answers = (getattr(one, "response", None) for one in chain)
        codes = [answer.status_code for answer in answers if answer is not None]
        if any(isinstance(one, errors.RevisionNotFoundError) for one in chain):
            told = "has no such revision"
        elif any(isinstance(one, errors.GatedRepoError) for one in chain):
            told = f"is shown to those only whom its owner lets in; ask on its page, and {LOGIN}"
        elif any(isinstance(one, errors.LocalTokenNotFoundError) for one in chain) or 401 in codes:
            told = f"does not exist, or the hub does not know you (401); {LOGIN}"
        elif 403 in codes:
            told = "is not yours to read or write with this token (403); accepted is one with that permission"
        elif 404 in codes:
            told = f"does not exist, or is private (404); accepted is OWNER/NAME as on its page; else {LOGIN}"
        elif codes:
            told = f"was refused by the hub ({codes[0]}): {first_line(chain[0])}"
        elif any(isinstance(one, errors.OfflineModeIsEnabled) for one in chain):
            told = "is not fetched, because HF_HUB_OFFLINE is set"
        else:
            told = f"cannot be reached: {first_line(chain[-1])}"
        raise HubError(f"{repo} {told}") from error
