"""Options of the commands that run a server."""

from __future__ import annotations

import click

from . import options

server: options.Decorator = click.option(
    "--server",
    metavar="PATH",
    type=options.ANY,
    help="The tritonserver to start. [default: that on PATH, else that of the wheel nvidia-pytriton]",
)
packages: options.Decorator = click.option(
    "--server-packages",
    "packages",
    metavar="DIR",
    type=options.FOLDER,
    help="Packages that the server's Python takes first: pip install --target DIR 'numpy<2' pillow.",
)
address: options.Decorator = click.option(
    "--address", metavar="HOST:PORT", help="gRPC of a server that runs already; none is started then."
)
model_names: options.Decorator = click.option(
    "--model", "names", metavar="NAME", multiple=True, help="Only this model of the repository; repeat it."
)
