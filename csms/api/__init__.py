"""The REST interface, health and metrics."""

from csms.service import paths as paths  # routes may use `{name:segment}`
