"""Certificates and credentials of charge points: our own CA, the TLS listener, what a handshake is judged by."""
