"""What a measurement ran on: facts that explain its times, and nothing that names the machine."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def facts() -> dict[str, str]:
    """Return the facts, in the order in which they are shown."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return {
        "cores": f"{len(os.sched_getaffinity(0))} ({_cpu()})",
        "load average before the run (1, 5, 15 minutes)": load,
        "system": f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}",
        "fillonce": f"{version('fillonce')}, with rq {version('rq')}, redis-py {version('redis')}",
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown model")


def lines(told: dict[str, str]) -> list[str]:
    """Return the facts as a Markdown list."""
    return [f"- {name}: {value}" for name, value in told.items()]
