"""curbside serve: run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from curbside.cli.folder_options import config_options, read_config
from curbside.cli.output import ExitCode, emit
from curbside.errors import StoreUnavailable
from curbside.server.app import CurbsideApp, Server, build_server, create_app
from curbside.server.config import Config

EXAMPLES = """\b
Examples:
  curbside serve --folder ./ward
  curbside serve --config /etc/curbside/curbside.toml
  curbside serve --folder ./ward --check
"""


@click.command("serve", epilog=EXAMPLES)
@config_options
@click.option("--check", is_flag=True, help="Read the configuration, open the database, then stop.")
@click.option("--json", "as_json", is_flag=True, help="Print where it listens as JSON.")
def serve(folder: Path, config_file: Path | None, check: bool, as_json: bool) -> int:
    """Run the server. Ctrl+C or SIGTERM stop it: streams hear good-bye, and what was accepted is finished first."""
    config = read_config(folder, config_file)
    app = create_app(config)
    if check:
        asyncio.run(_check(app))
        emit({"ok": True}, "The configuration is usable and the database opens.", as_json=as_json)
        return ExitCode.OK
    return asyncio.run(_run(config, app, as_json))


async def _check(app: CurbsideApp) -> None:
    await app.start()
    await app.stop()


async def _run(config: Config, app: CurbsideApp, as_json: bool) -> int:
    """Serve until a signal. uvicorn answers signals, and raises them again at its end: there they mean nothing more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    server = build_server(config, app)
    serving = asyncio.create_task(_serve(server), name="server")
    while not server.started and not serving.done():
        await asyncio.wait({serving}, timeout=0.05)
    if server.started:
        url = config.public_urls[0]
        where = {"url": url, "host": config.host, "port": config.port}
        emit(where, f"Curbside runs. Open {url}\nStop it with Ctrl+C.", as_json=as_json)
    await serving
    if not server.started:
        raise app.failure or StoreUnavailable(f"port {config.port} cannot be used; is another program on it?")
    return ExitCode.OK


async def _serve(server: Server) -> None:
    try:
        await server.serve()
    except SystemExit:  # uvicorn's way to say that it could not start; it is told as an error of ours
        return


def _ignore(number: int, frame: object) -> None:
    """A signal that was answered."""
