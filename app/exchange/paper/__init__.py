"""The paper exchange: a local HTTP server with the shapes and semantics of Binance USD-M futures and Spot.

It knows nothing of the rest of this project, so that it can bear witness: what it accepted is the ground truth
that the tests compare our own books with. The engine (``futures``, ``spot``, ``algo``, ``market``) is pure: every
change is a command with its own time, applied in order. The commands are written to a log before they are answered
and replayed at the next start. The HTTP side (``wire``, ``gateway``, ``routes_*``) is thin.
"""
