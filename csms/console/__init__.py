"""The operators' pages: rendered here, kept live by server-sent events."""

from csms.service import paths as paths  # routes may use `{name:segment}`
