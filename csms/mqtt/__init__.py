"""The MQTT side: one supervised link, the outbox relay, the protocol stream, retained state, commands."""
