"""When to charge: price slots, the choice among them, periods, and requests of a HEMS. Pure, for any kind of charger."""
