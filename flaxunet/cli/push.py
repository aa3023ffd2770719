"""`python -m flaxunet push`: a network enters; a repository with a model card leaves."""

from dataclasses import dataclass
from typing import Annotated

from flaxunet.cli.parse import Argument


@dataclass(frozen=True)
class Push:
    """Make a repository of a network: its weights, config.json, a model card, and a picture of its run.

    The card says what is known: classes, data, settings, scores, and how to use the network. No path of this
    machine and no name of a sample is in it, but the picture shows some images of the data with their names.
    The hub's token is where `hf auth login` has put it, or in HF_TOKEN. Exit codes: 0 done; 2 something
    cannot be used, or the hub refused it.
    """

    model: Annotated[str, Argument("MODEL", positional=True)]
    """a run that is done, or what flaxunet.save or python -m porting made"""
    repo: Annotated[str, Argument("REPO", positional=True)]
    """OWNER/NAME on the Hugging Face hub, made if there is none; or a new folder, as ./DIR, /DIR or file:///DIR"""
    license: Annotated[str | None, Argument("NAME")] = None
    """for the card, such as apache-2.0; left out, it says none"""
    private: bool = False
    """hide a repository that is made on the hub from others"""
    picture: bool = True
    """take along the run's predictions.png, with images of its data"""

    def run(self) -> int:
        """0 when the repository is there."""
        from rich.console import Console

        from flaxunet.hub import repository

        where, known = repository.push(
            self.model, self.repo, license=self.license, private=self.private, picture=self.picture
        )
        console = Console(highlight=False)
        console.print(where, markup=False, soft_wrap=True)
        if self.picture and known.picture is not None:
            told = f"{known.picture.name} is part of it: it shows images of {known.data or 'the data'}"
            console.print(told, markup=False, soft_wrap=True)
        if self.license is None:
            console.print("the card names no license; --license NAME does", soft_wrap=True)
        return 0
