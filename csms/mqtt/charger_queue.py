"""Which event may be published next. Pure: no clock, no SQL, no MQTT.

A relay gets events in two ways: the ledger of its node hands them over after each commit, and SELECTs read them from the
outbox. A charger's events are first published in the order of their `seq`, however the two ways mix:

- One event of a charger is in flight at a time. The next one goes after the broker's acknowledgement; after a failure
  the same event goes first again. So a charger's queue has to be in order and complete up to its last event: no older
  event may be in the outbox only.
- A SELECT returns, for each charger in its result, the lowest pending numbers without a gap (csms/db/outbox.py), and a
  charger's transactions commit in the order of seq (they lock its row). So rows of a SELECT that are not in the queue
  yet can be appended.
- An event that is handed over is taken only when its number follows the last one in the queue (`_last`), since then no
  event can lie between. Otherwise (another node has committed events of this charger, the queue was full, the charger
  is new here) it is left to the next SELECT, which returns it together with those before it.
- Events in the queue, in flight, or acknowledged but not yet deleted are known by (charger, seq): a SELECT that returns
  them again changes nothing. A row with a lower number than the last that is not known was revived by an operator (or
  its deletion was lost in a crash of Postgres, or the charger was deleted and counts from 1 again). It is published,
  late or again, and the next event that is handed over waits for a SELECT.
- A refused event pauses its charger: the charger's queue is dropped and filled by a SELECT afterwards.
- When the lanes are lost, everything is forgotten except what is in flight: the next owner starts from the table.
"""

from collections import deque
from collections.abc import Callable, Iterable
from math import inf

from msgspec import Struct

from csms.core.records import Event

EventKey = tuple[str, int]
_UNKNOWN = -1  # no event's number follows it


class PendingEvent(Struct):
    """An event to publish. `drops`: how often the connection ended while it was in flight."""

    event: Event
    attempts: int = 0
    drops: int = 0

    @property
    def key(self) -> EventKey:
        return self.event.charger_id, self.event.seq


class ChargerQueue:
    """Queues of one or more chargers; see the module. `ready` is called when a charger has an event that may go."""

    def __init__(self, max_waiting: int, ready: Callable[[], None]) -> None:
        self.waiting = 0
        self.in_flight: dict[str, PendingEvent] = {}
        self.paused: dict[str, float] = {}
        self.known: set[EventKey] = set()
        self.repeated = 0
        self._max_waiting = max_waiting
        self._announce = ready
        self._queues: dict[str, deque[PendingEvent]] = {}
        self._ready: deque[str] = deque()
        self._last: dict[str, int] = {}

    # --- events in -------------------------------------------------------------------------------

    def hand_over(self, event: Event) -> bool:
        """Take a committed event of a lane that this node owns. False: it must come by SELECT."""
        if event.charger_id in self.paused:
            return True  # `resume` asks for a SELECT
        # Of a charger that is new here, only the very first event is certain to have none before it.
        last = self._last.get(event.charger_id, 0)
        if event.seq <= last:
            if (event.charger_id, event.seq) in self.known:
                return True
            # Published before, or the charger was deleted and counts from 1 again.
            self._last[event.charger_id] = _UNKNOWN
            return False
        if event.seq != last + 1:
            return False
        if self.waiting >= self._max_waiting:
            return False
        self._append(PendingEvent(event))
        return True

    def load(self, rows: Iterable[PendingEvent]) -> int:
        """Take the rows of a SELECT, which are in order for each charger. Returns how many were new."""
        new = 0
        for item in rows:
            if item.key in self.known:
                self.repeated += 1
            elif item.event.charger_id not in self.paused:
                self._append(item)
                new += 1
        return new

    def _append(self, item: PendingEvent) -> None:
        charger_id, seq = item.key
        self.known.add(item.key)
        self._last[charger_id] = seq if seq > self._last.get(charger_id, 0) else _UNKNOWN
        self.waiting += 1
        queue = self._queues.setdefault(charger_id, deque())
        queue.append(item)
        if len(queue) == 1 and charger_id not in self.in_flight:
            self._mark_ready(charger_id)

    # --- events out ------------------------------------------------------------------------------

    def next(self) -> PendingEvent | None:
        """Return the next event to publish, which is in flight from now on."""
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
        """The broker has acknowledged the event. It stays known until `deleted`."""
        self.known.add(item.key)
        self._end_flight(item)

    def retry(self, item: PendingEvent) -> None:
        """Put the event first again, unless its lane was lost: whether the broker has it is unknown."""
        charger_id = item.event.charger_id
        if charger_id in self._last and item.key in self.known:
            self._queues.setdefault(charger_id, deque()).appendleft(item)
            self.waiting += 1
        else:
            self.known.discard(item.key)
        self._end_flight(item)

    def refused(self, item: PendingEvent) -> None:
        """The broker has refused the event. Its charger is paused; later events come back by SELECT."""
        charger_id = item.event.charger_id
        self.paused[charger_id] = inf
        self.known.discard(item.key)
        self._drop_queue(charger_id)
        self._last.pop(charger_id, None)
        self._end_flight(item)

    def deleted(self, keys: Iterable[EventKey]) -> None:
        """The rows of these events were deleted from the outbox."""
        self.known.difference_update(keys)

    def _end_flight(self, item: PendingEvent) -> None:
        charger_id = item.event.charger_id
        self.in_flight.pop(charger_id, None)
        if self._queues.get(charger_id):
            self._mark_ready(charger_id)

    def _mark_ready(self, charger_id: str) -> None:
        self._ready.append(charger_id)
        self._announce()

    # --- pauses and lost lanes -------------------------------------------------------------------

    def pause(self, charger_id: str, until: float) -> None:
        self.paused[charger_id] = until

    def resume(self, now: float) -> bool:
        """End the pauses that are over. True: there were some, so a SELECT is due."""
        due = [charger_id for charger_id, until in self.paused.items() if until <= now]
        for charger_id in due:
            del self.paused[charger_id]
        return bool(due)

    def forget(self) -> None:
        """Drop everything but what is in flight: the lanes were lost."""
        for charger_id in list(self._queues):
            self._drop_queue(charger_id)
        self._ready.clear()
        self._last.clear()
        self.paused.clear()

    def _drop_queue(self, charger_id: str) -> None:
        queue = self._queues.pop(charger_id, None)
        if queue:
            self.waiting -= len(queue)
            self.known.difference_update(item.key for item in queue)
