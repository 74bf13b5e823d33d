"""The REST and WebSocket face of the control plane: translates, holds nothing, and can be run many times over."""
