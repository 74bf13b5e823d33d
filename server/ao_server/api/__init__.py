"""The gRPC surface: one servicer per service, each method decoding, calling the engine or the store, and encoding."""
