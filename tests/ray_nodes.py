"""A Ray cluster of several nodes on this machine, for tests; nodes can be taken away and added."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mingmoe_eval.workers.ray_cluster import Places, RayCluster, connected

STORE_BYTES = 80 * 2**20


@contextlib.contextmanager
def cluster_of(nodes: int, *, cpus: int = 1) -> Iterator[Any]:
    """A head without CPUs, so that no worker lives there, and nodes that can be removed."""
    # Actors must find the doubles that are sent to them by name.
    found = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), found]))
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    quiet = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
    try:
        for _ in range(nodes):
            add_node(cluster, cpus=cpus)
        yield cluster
    finally:
        cluster.shutdown()
        os.environ.pop("PYTHONPATH")
        if found is not None:
            os.environ["PYTHONPATH"] = found


def add_node(cluster: Any, *, cpus: int = 1) -> Any:
    return cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES)


def workers_of(cluster: Any, count: int) -> contextlib.AbstractContextManager[RayCluster]:
    return connected(Places(workers=count, address=cluster.address))
