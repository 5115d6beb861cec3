"""The page behind the QR code on a rental station. It stands below /r/ and can be exposed without the console."""
