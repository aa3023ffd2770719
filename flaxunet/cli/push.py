"""`python -m flaxunet push`: makes a repository of a network, with a model card."""

from dataclasses import dataclass
from typing import Annotated

from flaxunet.cli.parse import Argument


@dataclass(frozen=True)
class Push:
    """Make a repository of a network: its weights, config.json, a model card, and a picture of its run.

    The card lists classes, data, settings and scores, as far as they are known, and how to use the network.
    It names no path of this machine and no sample, but the picture shows some images of the data with their
    names. The hub's token is taken from `hf auth login`, or from HF_TOKEN. Exit codes: 0 done; 2 something
    cannot be used, or the hub refused it.
    """

    model: Annotated[str, Argument("MODEL", positional=True)]
    """a finished run, or a folder made by flaxunet.save or python -m porting"""
    repo: Annotated[str, Argument("REPO", positional=True)]
    """OWNER/NAME on the Hugging Face hub, made if there is none; or a new folder, as ./DIR, /DIR or file:///DIR"""
    license: Annotated[str | None, Argument("NAME")] = None
    """license for the card, such as apache-2.0; none by default"""
    private: bool = False
    """hide a repository that is made on the hub from others"""
    picture: bool = True
    """include the run's predictions.png, which shows images of its data"""

    def run(self) -> int:
        """Makes the repository; returns 0 when it is there."""
        from rich.console import Console

        from flaxunet.hub import repository

        options = {"license": self.license, "private": self.private, "picture": self.picture}
        address, facts = repository.push(self.model, self.repo, **options)
        lines = [address]
        if self.picture and facts.picture is not None:
            lines += [f"{facts.picture.name} is part of it: it shows images of {facts.data or 'the data'}"]
        if self.license is None:
            lines += ["the card names no license; --license NAME adds one"]
        for line in lines:
            Console(highlight=False).print(line, markup=False, soft_wrap=True)
        return 0
