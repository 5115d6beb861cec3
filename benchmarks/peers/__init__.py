"""The systems csms is measured against."""
