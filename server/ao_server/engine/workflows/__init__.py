"""Workflows: what a definition says, and what follows from it."""
