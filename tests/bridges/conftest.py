"""Bridges are tested in whole nodes."""

from tests.e2e.conftest import node, start_node

__all__ = ["node", "start_node"]
