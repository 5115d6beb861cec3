"""The REST interface, health and metrics."""
