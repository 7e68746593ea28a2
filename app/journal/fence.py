"""A fence is (epoch, n): it only grows, and a restored journal starts a new epoch above everything written before."""

from typing import Final, NewType

Fence = NewType("Fence", int)

_SHIFT: Final = 32


def next_fence(current: int, epoch: int) -> Fence:
    """Return the fence after `current` in `epoch`, packed as `epoch << 32 | n`."""
    base = epoch << _SHIFT
    return Fence(current + 1 if current >= base else base + 1)


def is_before(fence: int, epoch: int) -> bool:
    """Return whether `fence` was given before `epoch`, or never."""
    return fence >> _SHIFT < epoch


def unpack(fence: int) -> tuple[int, int]:
    """Return (epoch, n)."""
    return fence >> _SHIFT, fence & ((1 << _SHIFT) - 1)
