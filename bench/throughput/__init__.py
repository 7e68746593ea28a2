"""Jobs per second: ours beside the queues one could pick instead, all placing the same order at the same sink."""
