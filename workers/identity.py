"""Who a process is: a name that no other process start will ever have."""

import re
import socket
import uuid


def new_owner(role: str) -> str:
    """Return a name for one process start; also the name of its RQ worker."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:20]
    return f"{host}-{role}-{uuid.uuid4().hex[:12]}"
