"""Quality, cost and latency of networks, and the challenges' protocols."""
