"""Which event may go next. Pure: no clock, no SQL, no MQTT; the relay feeds it and asks it.

Events reach a relay twice: handed over by the ledger of this node right after the commit, and read from the
outbox. The promise is that a charger's events are first published in the order of their `seq`, whatever
mixture of the two brings them:

- One event of a charger is in flight at a time. The next goes when the broker has acknowledged it; after a
  failure the same event goes first again. So it is enough that a charger's queue here is in order, and complete
  up to its last event: nothing older may still lie in the outbox alone.
- A SELECT brings, of each charger it mentions, the *lowest* pending numbers without a hole (csms/db/outbox.py),
  and a charger's transactions commit in the order of seq (they lock its row). So what a SELECT brings
  and is not here yet can be appended.
- A handed-over event is taken only when its number follows the last one that came here (`_last`): then nothing
  can lie between. If it does not follow (another node committed events of this charger in between, the queue
  was full, the charger is new to us), it is left alone and the next SELECT brings it *with* what is before it.
- What is here, in flight, or acknowledged but not yet deleted is known by (charger, seq): a SELECT that shows it
  again changes nothing. A row with a lower number than the last that is *not* known was freed by an operator
  (or its deletion was lost in a crash of Postgres, or the charger was deleted and counts from 1 again): it is
  sent, late or again, and what is handed over next waits for a SELECT once more.
- A refused event holds its charger back: the queue is forgotten and filled anew by a SELECT afterwards.
- With the lanes' lock everything is forgotten except what is in flight: the next owner starts from the table.
"""

from collections import deque
from collections.abc import Callable, Iterable
from math import inf

from msgspec import Struct

from csms.core.records import Event

EventKey = tuple[str, int]
_UNSURE = -1  # no number follows it


class PendingEvent(Struct):
    """An event on its way. `drops`: connections that ended while it was in flight."""

    event: Event
    attempts: int = 0
    drops: int = 0

    @property
    def key(self) -> EventKey:
        return self.event.charger_id, self.event.seq


class ChargerQueue:
    """See the module. `ready` is called each time one more charger has an event that may go."""

    def __init__(self, max_waiting: int, ready: Callable[[], None]) -> None:
        self.waiting = 0
        self.in_flight: dict[str, PendingEvent] = {}
        self.held: dict[str, float] = {}
        self.known: set[EventKey] = set()
        self.repeated = 0
        self._max_waiting = max_waiting
        self._announce = ready
        self._queues: dict[str, deque[PendingEvent]] = {}
        self._ready: deque[str] = deque()
        self._last: dict[str, int] = {}

    # --- events come -----------------------------------------------------------------------------

    def hand_over(self, event: Event) -> bool:
        """A committed event of a lane we own. False: only a SELECT can tell when it may go."""
        if event.charger_id in self.held:
            return True  # its release asks for a SELECT
        # A charger that is new to us: only its first event ever has surely nothing before it.
        last = self._last.get(event.charger_id, 0)
        if event.seq <= last:
            if (event.charger_id, event.seq) in self.known:
                return True
            # Sent already, or the charger was deleted and counts from 1 again.
            self._last[event.charger_id] = _UNSURE
            return False
        if event.seq != last + 1:
            return False
        if self.waiting >= self._max_waiting:
            return False
        self._append(PendingEvent(event))
        return True

    def load(self, rows: Iterable[PendingEvent]) -> int:
        """What a SELECT brought, each charger's in order. Returns how many were new."""
        new = 0
        for item in rows:
            if item.key in self.known:
                self.repeated += 1
            elif item.event.charger_id not in self.held:
                self._append(item)
                new += 1
        return new

    def _append(self, item: PendingEvent) -> None:
        charger_id, seq = item.key
        self.known.add(item.key)
        self._last[charger_id] = seq if seq > self._last.get(charger_id, 0) else _UNSURE
        self.waiting += 1
        queue = self._queues.setdefault(charger_id, deque())
        queue.append(item)
        if len(queue) == 1 and charger_id not in self.in_flight:
            self._is_ready(charger_id)

    # --- events go -------------------------------------------------------------------------------

    def next(self) -> PendingEvent | None:
        """The next event that may be published; it is in flight from now on."""
        while self._ready:
            charger_id = self._ready.popleft()
            queue = self._queues.get(charger_id)
            if not queue or charger_id in self.in_flight:
                continue
            item = queue.popleft()
            if not queue:
                del self._queues[charger_id]
            self.waiting -= 1
            self.in_flight[charger_id] = item
            return item
        return None

    def delivered(self, item: PendingEvent) -> None:
        """Acknowledged. It stays known until `deleted`."""
        self.known.add(item.key)
        self._landed(item)

    def again(self, item: PendingEvent) -> None:
        """Not known whether it arrived: it goes first again, unless its lane is not ours any more."""
        charger_id = item.event.charger_id
        if charger_id in self._last and item.key in self.known:
            self._queues.setdefault(charger_id, deque()).appendleft(item)
            self.waiting += 1
        else:
            self.known.discard(item.key)
        self._landed(item)

    def refused(self, item: PendingEvent) -> None:
        """Its charger waits until `release`; what comes after the event comes back by SELECT."""
        charger_id = item.event.charger_id
        self.held[charger_id] = inf
        self.known.discard(item.key)
        self._forget_queue(charger_id)
        self._last.pop(charger_id, None)
        self._landed(item)

    def deleted(self, keys: Iterable[EventKey]) -> None:
        """Their rows are gone from the outbox."""
        self.known.difference_update(keys)

    def _landed(self, item: PendingEvent) -> None:
        charger_id = item.event.charger_id
        self.in_flight.pop(charger_id, None)
        if self._queues.get(charger_id):
            self._is_ready(charger_id)

    def _is_ready(self, charger_id: str) -> None:
        self._ready.append(charger_id)
        self._announce()

    # --- holding back and letting go ---------------------------------------------------------------

    def hold(self, charger_id: str, until: float) -> None:
        self.held[charger_id] = until

    def release(self, now: float) -> bool:
        """Let the chargers go whose time is up. True: there were some, so a SELECT is due."""
        due = [charger_id for charger_id, until in self.held.items() if until <= now]
        for charger_id in due:
            del self.held[charger_id]
        return bool(due)

    def forget(self) -> None:
        """The lanes are not ours any more."""
        for charger_id in list(self._queues):
            self._forget_queue(charger_id)
        self._ready.clear()
        self._last.clear()
        self.held.clear()

    def _forget_queue(self, charger_id: str) -> None:
        queue = self._queues.pop(charger_id, None)
        if queue:
            self.waiting -= len(queue)
            self.known.difference_update(item.key for item in queue)
