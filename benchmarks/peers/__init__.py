"""Other task queues beside ours, with the same no-op work: `make bench-peers`. See docs/performance.md."""
