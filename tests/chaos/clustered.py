"""A cluster as the load generator sees one server: people come by its proxy and stay with whatever node takes them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster import Cluster, Node
from lines import Line
from postgres import database_of
from serving_process import ServingProcess

from curbside.clock import Clock


class ClusterUnderLoad(ServingProcess):
    """Has what `Load` and `run_trial` ask of a server. kills: how often something was ended."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.clock: Clock = cluster.clock
        self.url = cluster.line.origin
        self.authority = cluster.authority
        self.folder = cluster.folder
        self.kills = 0

    def stop(self) -> int:
        """Stop all nodes; the highest exit code."""
        return max(node.stop() for node in self.cluster.nodes)

    def close(self) -> None:
        """The cluster itself is somebody else's."""

    def command(self, *arguments: str) -> str:
        """What a command of `curbside` prints, with a node's settings."""
        environment = {f"CURBSIDE_{key}": value for key, value in self.cluster.settings(self.cluster.nodes[0]).items()}
        command = [sys.executable, "-m", "curbside", *arguments, "--config", str(self.cluster.config_file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@dataclass
class Cables:
    """What connects one node with the database and the bus."""

    database: Line
    bus: Line


class CabledCluster(Cluster):
    """A cluster whose first node reaches the database and the bus over cables of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        assert self.nats is not None
        self.cables = Cables(Line(), Line())
        address = database_of(folder).reveal().decode()
        self._database_port = int(address.partition("@127.0.0.1:")[2].partition("/")[0])
        self.cables.database.start(self._database_port)
        self.cables.bus.start(self.nats.port)

    def settings(self, node: Node) -> dict[str, str]:
        found = super().settings(node)
        if node is self.nodes[0]:
            ours, theirs = f"@127.0.0.1:{self.cables.database.port}/", f"@127.0.0.1:{self._database_port}/"
            found["DATABASE_URL"] = found["DATABASE_URL"].replace(theirs, ours)
            found["BUS_NATS"] = f"nats://127.0.0.1:{self.cables.bus.port}"
        return found

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.cables.database.close()
        self.cables.bus.close()
