"""`python -m flaxunet app`: a network enters; a page in the browser that tries it on images leaves."""

from dataclasses import dataclass
from typing import Annotated

from flaxunet.cli.parse import Argument


@dataclass(frozen=True)
class App:
    """Show in a browser what a network makes of images, until Ctrl-C.

    The page needs no other network than the way to it. Images stay in this program; what it puts on disk for
    the browser is gone when it ends. Exit codes: 0 ended; 2 something cannot be used.
    """

    model: Annotated[str, Argument("MODEL", positional=True)]
    """a run that is done, or what flaxunet.save, python -m porting or python -m flaxunet pull made"""
    host: Annotated[str, Argument("NAME")] = "127.0.0.1"
    """where to answer; 0.0.0.0 lets others of this machine's network in, without a password"""
    port: int = 7860
    """0 takes any that is free"""

    def run(self) -> int:
        """0 when it was ended."""
        import importlib.util
        from pathlib import Path

        import numpy as np
        from rich.console import Console

        from flaxunet.app import server
        from flaxunet.hub import card, facts
        from flaxunet.prediction.predictor import Predictor

        if importlib.util.find_spec("gradio") is None:
            raise ValueError(
                "the package gradio is not installed; accepted is after pip install 'flaxunet[app]'"
            )
        console = Console(highlight=False)
        _, known = facts.read(self.model)
        with server.listen(self.host, self.port) as listening, server.prepared():
            with console.status("loading the network"):
                predict = Predictor.load([Path(self.model)])
                predict(np.zeros((256, 256, predict.channels), np.float32))
                from flaxunet.app import page

                app = server.application(page.build(predict, known), theme=page.theme(), css=page.STYLE)
            address = server.url(self.host, listening)
            console.print(f"{known.name}, {card.title(known)}: [bold]{address}[/]  [dim](Ctrl-C ends)[/]")
            server.serve(app, listening)
        return 0
