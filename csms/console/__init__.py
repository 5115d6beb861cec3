"""The operators' pages: rendered here, kept live by server-sent events."""
