"""What can be seen from outside: numbers for Prometheus, the state for a person, whether it is ready. Only reads."""
