"""When cars charge: prices and HEMS commands come in, plans for OCPP chargers go out as charging profiles."""
