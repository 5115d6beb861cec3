"""The page behind the QR code on a rental station. It stands below /r/ and can be exposed without the console."""

from csms.service import paths as paths  # routes may use `{name:segment}`
