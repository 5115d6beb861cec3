"""Raw frames as they are written down, for live pages and streams."""

from datetime import timedelta

from csms.db import logs
from csms.service.context import ServiceContext

# A frame is written up to half a second after its time, and the clocks of nodes differ: look back this far.
_OVERLAP = timedelta(seconds=10)


class FrameTail:
    """A charger's frames as they are written: each look returns those that no look before has returned."""

    def __init__(self, context: ServiceContext, charger_id: str) -> None:
        self._context = context
        self._charger_id = charger_id
        self._known: set[str] | None = None

    async def look(self) -> list[logs.LoggedFrame]:
        """Oldest first. The first look sees what is there already, and returns nothing."""
        async with self._context.engine.connect() as db:
            found = await logs.frames_since(db, self._charger_id, self._context.now() - _OVERLAP)
        fresh = [] if self._known is None else [m for m in found if m.place not in self._known]
        self._known = {message.place for message in found}
        return fresh
