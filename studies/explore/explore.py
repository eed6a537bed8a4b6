"""The command `jacobian-lab explore`: the Jacobian under one's finger, in the browser."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
import webbrowser
from dataclasses import dataclass
from typing import Any

from jacobian_lab import InputError, _require

MOST_SESSIONS = 4
"""Pages that are open at once: each holds an operator and its threads."""
MESSAGE_BYTES = 8 * 2**20
"""Of the largest message of a page: an upload in base64."""
LEFT_MILLISECONDS = 5000
"""How long a page that was closed keeps its operator: it may be loaded anew."""


@dataclass(frozen=True)
class Explore:
    """Look at J in the browser. Example: jacobian-lab explore --model mnist --digit 3.

    A page on this machine: click a pixel for its column and row of J, paint a wish and see the
    directions towards it, step along eigenvectors, paint a mask and watch constrained samples.
    Ctrl-C ends it.
    """

    model: str = "mnist"
    """mnist, mnist-flow, oracle or a denoiser's path; of latents mnist-latent, a pipeline's folder
    or its hub id; your own as FILE.py:FUNCTION. The page also offers the models that ship.
    """
    digit: int = 0
    """Held-out digit that is shown first, 0 to 4999."""
    time: float = 500
    """Noise level that is shown first, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    seed: int = 0
    """Seed of the noise."""
    device: str = "cpu"
    """Where the network runs: cpu, cuda, cuda:1, mps."""
    port: int = 5007
    """Port of the page on this machine."""
    address: str = "127.0.0.1"
    """Address at which the page is served. By default only this machine sees it; there is no
    password.
    """
    browser: bool = True
    """Open the page in the browser."""

    def __post_init__(self) -> None:
        _require.options(self)
        _require.seed(self.seed, "--seed")
        _require.device(self.device)
        _require.integer("--digit", self.digit, 0, 4999)
        _require.integer("--port", self.port, 1, 65535)
        _require.real("--time", self.time, "[0, inf)")
        check_address(self.address)


def check_address(address: str) -> None:
    """Raise unless an address is one of one machine."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise InputError(
            f"--address {address} is no IP address: take 127.0.0.1, or an address of this machine"
        ) from error
    if parsed.is_unspecified or parsed.is_multicast:
        raise InputError(
            f"--address {address} is not one address: name the one of this machine that others use,"
            " or 127.0.0.1 for this machine only"
        )


def serve(options: Explore) -> None:
    """Open the model and serve the page until Ctrl-C."""
    server, pages = make_server(options)
    server.start()
    where = url(options)
    print(f"{where} shows J of {options.model}; Ctrl-C ends it", flush=True)
    if options.browser:
        webbrowser.open(where)
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        print("\nended", file=sys.stderr)
    finally:
        pages.close()  # threads end before Python does
        server.stop()


def make_server(options: Explore) -> tuple[Any, Any]:
    """Return the server, not started, and its pages; raise if there is no such model or the port
    is taken.
    """
    _require.library("bokeh", "explore", "the explorer")
    from bokeh.server.server import Server

    from studies.explore.choice import SHIP, Look, opened, times_of
    from studies.explore.explore_page import Pages

    check_free(options.address, options.port)
    times = times_of(opened(options.model, options.device))
    first = Look(options.model, options.digit, times.carried(options.time), options.seed)
    models = list(dict.fromkeys([options.model, *SHIP]))
    pages = Pages(first, models, options.device, MOST_SESSIONS)
    server = Server(
        {"/": pages},
        port=options.port,
        address=options.address,
        allow_websocket_origin=origins(options),
        websocket_max_message_size=MESSAGE_BYTES,
        unused_session_lifetime_milliseconds=LEFT_MILLISECONDS,
        check_unused_sessions_milliseconds=2000,
    )
    return server, pages


def check_free(address: str, port: int) -> None:
    """Raise unless the port can be served: Bokeh's own attempt leaves a socket open."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise InputError(
            f"--address {address} --port {port} cannot be served"
            f" ({'the port is taken' if taken else error.strerror}): choose another"
        ) from error


def url(options: Explore) -> str:
    """Return where the page is."""
    return f"http://{origins(options)[0]}/"


def origins(options: Explore) -> list[str]:
    """Return the hosts whose pages may talk to the server: its own address only."""
    host = f"[{options.address}]" if ":" in options.address else options.address
    local = ["localhost"] if ipaddress.ip_address(options.address).is_loopback else []
    return [f"{name}:{options.port}" for name in (host, *local)]
