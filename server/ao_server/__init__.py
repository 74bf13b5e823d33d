"""The server: one store, one engine, gRPC services on top."""
