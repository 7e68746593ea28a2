"""What can be seen from outside: numbers for Prometheus, the state for a person, whether it is ready.

It only reads, but for the kill switch, which who shows the token may throw over HTTP.
"""
