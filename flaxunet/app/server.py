"""Serves the page on one address, without any request to others, until it is interrupted."""

import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

# A browser may fetch from the page's own address, and nowhere else.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)
# Gradio reads these when it is imported and when a page is made.
_OFF = ("ANALYTICS_ENABLED", "SHARE", "RUN_HISTORY", "MCP_SERVER", "SSR_MODE")
QUIET = {f"GRADIO_{name}": "False" for name in _OFF} | {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
LARGEST = "1gb"  # of an uploaded file: four bytes for each of `pixels.MAX_VALUES`


class ServerError(ValueError):
    """An address that cannot be used; the message is one line."""


@contextlib.contextmanager
def quiet_gradio() -> Iterator[None]:
    """Keeps Gradio from sending anything to others, and its files in a folder that is then deleted."""
    with tempfile.TemporaryDirectory(prefix="flaxunet-app-") as folder:
        before = dict(os.environ)
        os.environ.update(QUIET, GRADIO_TEMP_DIR=folder)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def listen(host: str, port: int) -> socket.socket:
    """Binds a socket to an address; port 0 takes any free one.

    Raises: ServerError if there is no such address here, or it is in use.
    """
    if not 0 <= port < 65536:
        raise ServerError(f"--port is {port}; expected 0 to 65535, where 0 takes any free one")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ServerError(f"--host is {host!r}: {getattr(error, 'strerror', None) or error}") from None
    try:
        if os.name != "nt":  # there it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        raise ServerError(f"{host}, port {port}: {reason}; expected another --host or --port") from None
    return listening


def url(host: str, listening: socket.socket) -> str:
    """The address to open in a browser on this machine."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{here}]' if ':' in here else here}:{listening.getsockname()[1]}"


def application(page: Any, **appearance: Any) -> Callable[..., Any]:
    """Makes the ASGI application of a `gradio.Blocks`; `appearance` is its theme and css."""
    import fastapi
    import gradio as gr

    outer = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    off = dict.fromkeys(("run_history", "ssr_mode", "pwa", "mcp_server", "enable_monitoring"), False)
    options = {"path": "/", "max_file_size": LARGEST, "footer_links": [], **off, **appearance}
    return _with_policy(gr.mount_gradio_app(outer, page, **options))


def serve(app: Callable[..., Any], listening: socket.socket) -> None:
    """Serves until Ctrl-C or SIGTERM, and returns then."""
    import uvicorn

    config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    # uvicorn raises the signal that ended it again when it is done.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)


def _with_policy(app: Callable[..., Any]) -> Callable[..., Any]:
    headers = [(b"referrer-policy", b"no-referrer"), (b"x-content-type-options", b"nosniff")]
    headers.append((b"content-security-policy", POLICY.encode()))

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await app(scope, receive, sending)

    return guarded
