"""What becomes of orders when workers are killed: other job queues and ours, measured side by side."""
