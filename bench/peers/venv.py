"""The virtual environment of the peers: they are not among the project's requirements."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.output import ROOT

FOLDER: Final = ROOT / "var" / "peers-venv"
PINNED: Final = (
    "rq==2.12.0", "celery[redis]==5.7.0", "dramatiq==2.2.1", "huey==3.5.4", "redis==8.1.0", "kombu==5.7.0",
    # boto3: Powertools imports it whatever its records are kept in. matplotlib draws the plots.
    "aws-lambda-powertools==3.37.0", "boto3==1.44.8", "dbos==3.4.0", "psycopg[binary]==3.3.9", "matplotlib==3.11.2",
)  # fmt: skip
PYTHON: Final = FOLDER / "bin" / "python"


def ensure() -> Path:
    """Make it unless it is there; return its Python."""
    made_with = FOLDER / "pinned.txt"
    if not (made_with.exists() and made_with.read_text(encoding="utf-8").split() == list(PINNED)):
        sys.stderr.write(f"installing {', '.join(PINNED)} into var/{FOLDER.name}\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
        pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
        subprocess.run([*pip, *PINNED], check=True)
        made_with.write_text("\n".join(PINNED), encoding="utf-8")
    return PYTHON
