"""`fillonce demo`: the main job end to end, while workers are being killed."""

from app.cli.demo.command import demo

__all__ = ["demo"]
