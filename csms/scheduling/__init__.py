"""When to charge: price slots, the choice among them, periods, and what a HEMS asks for. Pure; no charger is known here."""
