"""Workflows: what they are, what their executions do next, and what carries that out."""
