"""A real Ray cluster of several nodes on this machine; each has a cache folder, and so a local store, of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any

from trtcompress.ray_cluster import sigterm_kept
from trtcompress.store import ENTRY

MEMORY = 80 * 2**20
SOON = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}
"""So that a node that was killed counts as dead after seconds."""


@dataclass
class RayNodes:
    """A head that takes no work, and nodes of one CPU by name."""

    folder: Path
    nodes: dict[str, Any] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    """Variables of the environment that each node has."""

    client_port: int = 0
    """Of the head, for machines outside the cluster."""

    def start(self) -> RayNodes:
        from ray.cluster_utils import Cluster

        with socket() as one:
            one.bind(("127.0.0.1", 0))
            self.client_port = int(one.getsockname()[1])
        head = {"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False, "_system_config": SOON}
        head["ray_client_server_port"] = self.client_port
        with sigterm_kept():
            self.cluster = Cluster(initialize_head=True, head_node_args=head)
        (self.folder / "share").mkdir(parents=True)
        return self

    def add(self, name: str, **resources: float) -> None:
        """Start a node; `rtx_4090=1` gives it the resource of that target."""
        own = {f"trtcompress:{key.replace('_', '-')}": amount for key, amount in resources.items()}
        environment = {**self.given, "XDG_CACHE_HOME": str(self.folder / name), "TRTCOMPRESS_STORE": ""}
        with sigterm_kept():
            self.nodes[name] = self.cluster.add_node(
                num_cpus=1, object_store_memory=MEMORY, resources=own, env_vars=environment
            )

    def kill(self, name: str) -> None:
        """Kill a node with everything that runs on it, at once."""
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def stop(self) -> None:
        self.cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    @property
    def client(self) -> str:
        """The address for a machine outside the cluster."""
        return f"ray://127.0.0.1:{self.client_port}"

    @property
    def url(self) -> str:
        """Of the store that the nodes share."""
        return f"file://{self.folder}/share"

    @property
    def environment(self) -> dict[str, str]:
        """Of the machine that starts a build: it has a local store of its own, too."""
        return {"XDG_CACHE_HOME": str(self.folder / "driver"), "TRTCOMPRESS_STORE": "", "RAY_ADDRESS": ""}

    def entries(self, name: str) -> dict[str, str]:
        """Keys in the local store of a node, of what it made and of what it needed for that, with their steps."""
        notes = (self.folder / name / "trtcompress/objects").glob(f"*/*/{ENTRY}")
        facts = {note.parent.name: json.loads(note.read_text(encoding="utf-8")) for note in notes}
        return {key: f"{one['stage']} {one['subject']}".strip() for key, one in facts.items()}

    def shared(self) -> dict[str, int]:
        """Notes in the shared store with the time of their writing."""
        return {note.name: note.stat().st_mtime_ns for note in (self.folder / "share/entries").glob("*/*.json")}


def waiting_samples(folder: Path) -> str:
    """A data source that notes on which node it is read, and waits there until `folder/go` is there."""
    (folder / "waiting.py").write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        f"HERE = Path({str(folder)!r})\n"
        "def samples():\n"
        '    with (HERE / "read_on").open("a") as notes:\n'
        '        print(os.path.basename(os.environ.get("XDG_CACHE_HOME", "here")), os.getpid(), file=notes)\n'
        '    while not (HERE / "go").exists():\n'
        "        time.sleep(0.05)\n"
        "    rng = np.random.default_rng(1)\n"
        '    return [{"x": rng.normal(size=(12, 3, 8, 8)).astype(np.float32)}]\n',
        encoding="utf-8",
    )
    return "waiting:samples"


def read_on(folder: Path) -> list[tuple[str, int]]:
    """Nodes on which the samples were read, and by which process; the first one first."""
    notes = folder / "read_on"
    lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]
