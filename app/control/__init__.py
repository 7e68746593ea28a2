"""The operator's hand on a whole installation: the same code whether the command line or HTTP moves it."""
