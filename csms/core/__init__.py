"""The decisions: plain functions over records, without await, clock, SQL or MQTT."""
