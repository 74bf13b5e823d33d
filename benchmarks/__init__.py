"""Speed, each figure beside a baseline of the same run: `make bench`, `make bench-quick`. See docs/performance.md."""
