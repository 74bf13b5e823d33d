"""The rules: what may happen to agents and tasks, when, and in which order. No gRPC, no SQL."""
