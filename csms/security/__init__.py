"""Certificates and credentials of chargers: the CA of csms, TLS of the OCPP listener, keys and security profiles."""
