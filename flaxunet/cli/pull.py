"""`python -m flaxunet pull`: fetches a network from a repository into a folder for `flaxunet.load`."""

from dataclasses import dataclass
from typing import Annotated

from flaxunet.cli.parse import Argument


@dataclass(frozen=True)
class Pull:
    """Fetch a network that `push` made, whole and checked against its sha256, or not at all.

    It takes config.json, model.safetensors, the card and its picture; no code runs. Exit codes: 0 done; 2
    something cannot be used or reached, and nothing was written.
    """

    repo: Annotated[str, Argument("REPO", positional=True)]
    """OWNER/NAME on the Hugging Face hub; or a folder, as ./DIR, /DIR or file:///DIR"""
    out: Annotated[str, Argument("DIR")]
    """the folder to be made"""
    revision: Annotated[str | None, Argument("NAME")] = None
    """branch, tag or commit on the hub; the newest by default"""

    def run(self) -> int:
        """Fetches the network; returns 0 when the folder is there."""
        from rich.console import Console

        from flaxunet.hub import card, repository

        facts = repository.pull(self.repo, self.out, revision=self.revision)
        console = Console(highlight=False)
        network = f"{card.title(facts)}, {facts.parameters:,} parameters, {facts.sha256[:12]}..."
        classes = [f"classes: {', '.join(facts.classes)}"] if facts.classes else []
        load = f'load with: flaxunet.load("{self.out}")'
        for line in (f"{self.out}: {network}", *classes, card.origin(facts), load):
            console.print(line, markup=False, soft_wrap=True)
        return 0
