"""Decisions: pure functions over records. No await, no clock, no SQL, no MQTT."""
