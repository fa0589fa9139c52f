"""The proxies of deploy/proxies, run as they are but for ports, paths and names."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from self_signed import Certificate

START_SECONDS = 30.0
_MAIN = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/curbside.conf;
}}
"""


@dataclass(frozen=True)
class FrontPlan:
    """port: where clients come. servers: ports of the servers behind."""

    source: Path
    folder: Path
    port: int
    servers: tuple[int, ...]
    certificate: Certificate


class Front:
    """A proxy that runs; use as a context manager."""

    def __init__(self, command: Sequence[str], folder: Path, port: int) -> None:
        self._command = list(command)
        self._folder = folder
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Front:
        environment = {**os.environ, "HOME": str(self._folder), "XDG_DATA_HOME": str(self._folder)}
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output, env=environment)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "output").read_text()[-3000:]
            assert time.monotonic() < deadline, "the proxy does not listen"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


def find_program(name: str) -> str:
    """A proxy's program. Raises: AssertionError with the next step; a proxy is never passed over in silence."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert found, f"{name} is not here; next step: tools/setup.sh proxies"
    return found


def replace_all(text: str, changes: Sequence[tuple[str, str]]) -> str:
    """Each pattern must be there, so that the file that is tried stays the one that is shipped."""
    for pattern, new in changes:
        text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
        assert count, f"{pattern!r} is not in the file"
    return text


def run_nginx(plan: FrontPlan) -> Front:
    """nginx with deploy/proxies/nginx.conf."""
    folder, certificate = plan.folder, plan.certificate
    servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=2 fail_timeout=5s;" for port in plan.servers)
    text = replace_all(
        (plan.source / "nginx.conf").read_text("utf-8"),
        [
            (r"^    server 127\.0\.0\.1:8443 .*$", servers),
            (r"^    listen 80;\n    listen \[::\]:80;$", f"    listen unix:{folder}/plain.sock;"),
            (r"^    listen 443 ssl http2;\n    listen \[::\]:443 .*$", f"    listen 127.0.0.1:{plan.port} ssl http2;"),
            (r"curbside\.example\.org", "localhost 127.0.0.1"),
            (r"/etc/ssl/curbside/fullchain\.pem", str(certificate.chain)),
            (r"/etc/ssl/curbside/privkey\.pem", str(certificate.key)),
            (r"/etc/nginx/curbside-headers\.conf", str(plan.source / "curbside-headers.conf")),
            (r"/var/log/nginx/curbside\.log", str(folder / "access.log")),
        ],
    )
    (folder / "curbside.conf").write_text(text, "utf-8")
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder), "utf-8")
    return Front([find_program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")], folder, plan.port)


def run_caddy(plan: FrontPlan) -> Front:
    """Caddy with deploy/proxies/Caddyfile."""
    certificate = plan.certificate
    servers = " ".join(f"127.0.0.1:{port}" for port in plan.servers)
    text = replace_all(
        (plan.source / "Caddyfile").read_text("utf-8"),
        [
            (r"^\tadmin off$", "\tadmin off\n\tauto_https off"),
            (
                r"^curbside\.example\.org \{$",
                f"https://127.0.0.1:{plan.port}, https://localhost:{plan.port} {{\n\tbind 127.0.0.1\n"
                f"\ttls {certificate.chain} {certificate.key}",
            ),
            (r"127\.0\.0\.1:8443", servers),
        ],
    )
    path = plan.folder / "Caddyfile"
    path.write_text(text, "utf-8")
    return Front(
        [find_program("caddy"), "run", "--config", str(path), "--adapter", "caddyfile"], plan.folder, plan.port
    )
