"""`python -m flaxunet app`: serves a page in the browser that tries a network on images."""

from dataclasses import dataclass
from typing import Annotated

from flaxunet.cli.parse import Argument


@dataclass(frozen=True)
class App:
    """Try a network on images in the browser, until Ctrl-C.

    The page fetches nothing from other addresses. Images stay on this machine, and files that are kept for
    the browser are deleted at the end. Exit codes: 0 ended; 2 something cannot be used.
    """

    model: Annotated[str, Argument("MODEL", positional=True)]
    """a finished run, or a folder made by flaxunet.save, python -m porting or python -m flaxunet pull"""
    host: Annotated[str, Argument("NAME")] = "127.0.0.1"
    """address to serve on; 0.0.0.0 admits other machines of the network, without a password"""
    port: int = 7860
    """port to serve on; 0 takes any free one"""

    def run(self) -> int:
        """Serves the page; returns 0 when it is ended."""
        import importlib.util
        from pathlib import Path

        import numpy as np
        from rich.console import Console

        from flaxunet.app import server
        from flaxunet.hub import card, facts
        from flaxunet.prediction.predictor import Predictor

        if importlib.util.find_spec("gradio") is None:
            raise ValueError('gradio is not installed: pip install "flaxunet[app]"')
        console = Console(highlight=False)
        _, known = facts.read(self.model)
        with server.listen(self.host, self.port) as listening, server.quiet_gradio():
            with console.status("loading the network"):
                predict = Predictor.load([Path(self.model)])
                predict(np.zeros((256, 256, predict.channels), np.float32))  # compiles
                from flaxunet.app import page

                app = server.application(page.build(predict, known), theme=page.theme(), css=page.STYLE)
            address = server.url(self.host, listening)
            console.print(f"{known.name}, {card.title(known)}: [bold]{address}[/]  [dim](Ctrl-C ends)[/]")
            server.serve(app, listening)
        return 0
