"""Enqueue jobs into the peer that is named: `python -m bench.throughput.fill PEER FIRST COUNT`."""

import sys
from importlib import import_module

if __name__ == "__main__":
    peer, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    import_module(f"bench.throughput.on_{peer}").fill([f"order-{number}" for number in range(first, first + count)])
