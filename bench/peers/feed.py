"""Enqueues what it reads, a client id a line, into the peer that its argument names; answers each with a line."""

import sys
from importlib import import_module


def main() -> None:
    enqueue = import_module(f"bench.peers.on_{sys.argv[1]}").enqueue
    for line in sys.stdin:
        enqueue(line.strip())
        sys.stdout.write("ok\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
