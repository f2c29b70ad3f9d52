#!/usr/bin/env python3
"""How many nodes and how many Redis shards a number of connections needs, from measured costs.

    python3 benches/capacity.py                       # the table in benches/README.md
    python3 benches/capacity.py --connections 5000000 --received-every 2 --listeners 200

It adds up CPU time, memory and messages: no queueing, no bursts. "Half full" is how much of a core is
planned to be used, so that a burst of twice the mean, or the loss of half of the nodes, still fits.
"""

import argparse
import math

# Measured, in microseconds of one core unless it says otherwise; benches/README.md says where.
DELIVERY = 8.0          # one frame to one socket that waits for nothing: one system call
PUBLICATION = 10.0      # a command read, decided, handed to Redis and answered
HANDSHAKE = 51.0        # an upgrade with a token, admitted through Redis, and its end
SESSION_KIB = 2.2       # resident memory of an idle session
REDIS_PUBLISH = 0.7     # of Redis' core for one publication
REDIS_SESSION = 13.5    # and for a session's admission and its end together
# Estimated.
PING = 8.0              # a ping and its pong, as a delivery
REFRESH = 40.0          # verified, checked and recorded again: an admission without its sockets
SOCKET_KIB = 4.0        # the kernel's for an idle socket
REDIS_NODE = 0.6        # for each node that listens to a publication's channel
REDIS_REFRESH = 7.0

NODE_CORES, NODE_GIB, HALF_FULL = 8, 16, 0.5
PING_SECONDS = 25


def plan(connections, options):
    """What it takes, and what of it is scarce first."""
    deliveries = connections / options.received_every
    publications = deliveries / options.listeners
    handshakes = connections / (options.stays * 60)
    refreshes = connections / (options.token * 60)
    pings = connections / PING_SECONDS
    cores = (deliveries * DELIVERY + pings * PING + publications * PUBLICATION
             + handshakes * HANDSHAKE + refreshes * REFRESH) / 1e6
    by_cpu = cores / (NODE_CORES * HALF_FULL)
    by_memory = connections * (SESSION_KIB + SOCKET_KIB) / (NODE_GIB * 2**20 * HALF_FULL)
    nodes = max(2, math.ceil(max(by_cpu, by_memory)))
    # A channel's listeners are spread over as many nodes as there are of either.
    reached = min(nodes, options.listeners)
    redis = (publications * (REDIS_PUBLISH + reached * REDIS_NODE)
             + handshakes * REDIS_SESSION + refreshes * REDIS_REFRESH) / 1e6
    shards = max(1, math.ceil(redis / HALF_FULL))
    fan_in = publications * reached / nodes
    first = max((by_cpu / nodes, "nodes' CPU"), (by_memory / nodes, "nodes' memory"), (redis / shards / HALF_FULL, "Redis' CPU"))
    return {
        "connections": connections, "deliveries/s": deliveries, "publications/s": publications, "handshakes/s": handshakes,
        "nodes": nodes, "nodes by CPU": by_cpu, "nodes by memory": by_memory, "publications/s into a node": fan_in,
        "Redis cores busy": redis, "Redis shards": shards, "full first": first[1],
    }


def shown(value):
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--connections", type=int, nargs="*", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--received-every", type=float, default=10, help="seconds between two messages to a client")
    parser.add_argument("--listeners", type=float, default=20, help="listeners of a channel, on the mean")
    parser.add_argument("--stays", type=float, default=30, help="minutes that a client stays")
    parser.add_argument("--token", type=float, default=10, help="minutes between two refreshes")
    options = parser.parse_args()
    plans = [plan(connections, options) for connections in options.connections]
    for name in plans[0]:
        print(f"| {name} | " + " | ".join(shown(one[name]) for one in plans) + " |")


if __name__ == "__main__":
    main()
