"""The messages of a story in the order in which csms is told them, and what really flowed."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tests.harness.adversary import stories
from tests.harness.adversary.stories import MAX_W, Mischief, Session, Story

START, READING, STOP, STATUS, BOOT = "start", "reading", "stop", "status", "boot"
INFER, CORRECT = "infer", "correct"  # what csms and an operator do in between
LOST_CLOCK = datetime(1970, 1, 1, tzinfo=UTC)
_IDLE_MIN = 10
_ABSURD_OF = (
    lambda _: 0, lambda _: -1, lambda _: None, lambda _: 1, lambda _: 2**31 - 1, lambda _: 2**32 - 1,
    lambda _: 10**15, lambda wh: wh // 1000, lambda wh: wh * 1000, lambda wh: wh + 5000, lambda wh: wh - 3000,
    lambda wh: wh + 40_000,
)  # fmt: skip


class Message(Struct, frozen=True, kw_only=True):
    """`minute`: when it was made; `at`: its time by the charger's clock; `session`: the one that it names, -1: none.

    `tag` and `register_wh` as the charger sends them; `absurd`: its register is no register of the meter.
    """

    kind: str
    minute: float
    connector: int = 0
    session: int = -1
    at: datetime = LOST_CLOCK
    register_wh: int | None = None
    reading_wh: int | None = None  # of a stop: the reading that it carries
    word: str = ""
    absurd: bool = False

    @property
    def from_charger(self) -> bool:
        return self.kind not in {INFER, CORRECT}


class Told(Struct, frozen=True, kw_only=True):
    """A message as csms is told it: when, under which message id."""

    message: Message
    number: int
    received_min: float
    message_id: str


class Course(Struct, kw_only=True):
    """What happened: `messages` in order, the energy that flowed by connector up to a minute, where a register broke."""

    story: Story
    messages: list[Message]
    flowed: dict[int, list[tuple[float, int]]]
    breaks: dict[int, list[float]]
    began_min: dict[int, float]
    ended_min: dict[int, float]

    def flow_wh(self, connector: int, since_min: float, until_min: float) -> int:
        return self._flowed_by(connector, until_min) - self._flowed_by(connector, since_min)

    def _flowed_by(self, connector: int, minute: float) -> int:
        return max((wh for at, wh in self.flowed[connector] if at <= minute), default=0)


class _Meter:
    """The register of a connector. `flow_wh` is what it should have counted."""

    def __init__(self, register_wh: int, wraps_at: int) -> None:
        self.flow_wh, self._count_wh, self._wraps_at, self._in_kwh = 0, register_wh, wraps_at, False

    @property
    def register_wh(self) -> int:
        shown_wh = self._count_wh % self._wraps_at
        return shown_wh // 1000 if self._in_kwh else shown_wh

    def draw(self, energy_wh: int) -> None:
        self.flow_wh += energy_wh
        self._count_wh += energy_wh

    def fail(self, event: str) -> None:
        if event == stories.RESET:
            self._count_wh = 0
        elif event == stories.BASE:
            self._count_wh //= 2
        elif event == stories.JUMP:
            self._count_wh += 300_000
        else:
            self._in_kwh = event == stories.KWH


def take(story: Story, begins: datetime) -> Course:
    """Return the course of a story that begins then."""
    course = Course(
        story=story, messages=[], flowed={1: [], 2: []}, breaks={1: [], 2: []}, began_min={}, ended_min={}
    )
    meters = {n: _Meter(wh, story.wraps_at) for n, wh in enumerate(story.registers, 1)}
    cursors = {1: 0.0, 2: 0.25}
    for number, session in enumerate(story.sessions):
        begun = cursors[session.connector]
        made = list(_session(course, number, session, meters[session.connector], begun))
        cursors[session.connector] = made[-1].minute + 0.25
        course.messages += made
    course.messages.sort(key=lambda message: message.minute)
    course.messages = list(_stamped(course.messages, begins, story.off_min))
    return course


def _session(
    course: Course, number: int, session: Session, meter: _Meter, minute: float
) -> Iterator[Message]:
    place: dict[str, Any] = {"connector": session.connector, "session": number}

    def drew(percent: int, minutes: float) -> None:
        meter.draw(int(MAX_W * percent * minutes / 6000))
        course.flowed[session.connector].append((minute, meter.flow_wh))

    def failed(event: str) -> None:
        meter.fail(event)
        course.breaks[session.connector].append(minute)

    minute += _IDLE_MIN
    drew(session.idle_percent, _IDLE_MIN)
    if session.parting:
        failed(session.parting)
    course.began_min[number] = minute
    yield Message(kind=START, minute=minute, register_wh=meter.register_wh, **place)
    minute += 0.1
    yield Message(kind=STATUS, minute=minute, word="Charging", **place)
    for step in session.steps:
        minute += step.minutes
        if step.event in stories.METER_FAULTS:
            failed(step.event)
        elif step.event:
            yield Message(kind=BOOT, minute=minute - 0.5, word=step.event, **place)
            if step.event == stories.RESUME:
                yield Message(kind=INFER, minute=minute - 0.3, **place)
        drew(step.percent, step.minutes)
        yield Message(kind=READING, minute=minute, register_wh=meter.register_wh, **place)
    minute += 1
    drew(50, 1)
    course.ended_min[number] = minute
    with_it = meter.register_wh if session.reading_with_stop else None
    yield Message(kind=STOP, minute=minute, register_wh=meter.register_wh, reading_wh=with_it, **place)
    minute += 0.5
    yield Message(kind=STATUS, minute=minute, word="Available", **place)
    if session.corrected:
        minute += 0.5
        yield Message(kind=CORRECT, minute=minute, word=session.corrected, **place)


def _stamped(messages: Sequence[Message], begins: datetime, off_min: int) -> Iterator[Message]:
    """Each with its time by the clock of the charger, which a boot sets right."""
    ahead_min, lost_at = float(off_min), None
    for message in messages:
        if message.kind == BOOT:
            if message.word in stories.CLOCK_FAULTS:
                if message.word == stories.LOST:
                    lost_at = message.minute
                ahead_min += {stories.AHEAD: 50, stories.BACK: -50}.get(message.word, 0)
                continue  # it is not told
            ahead_min, lost_at = float(off_min), None
        if lost_at is None:
            at = begins + timedelta(minutes=message.minute + ahead_min)
        else:
            at = LOST_CLOCK + timedelta(minutes=message.minute - lost_at)
        yield replace(message, at=at.replace(microsecond=0))


# --- what becomes of the messages -------------------------------------------------------------------------------------


def told(course: Course, mischief: Sequence[Mischief]) -> list[Told]:
    """Return what csms is told, in the order of arrival."""
    line = [
        Told(message=message, number=number, received_min=message.minute, message_id=str(number))
        for number, message in enumerate(course.messages)
    ]
    queues: list[tuple[int, int]] = []
    for one in mischief:
        number = one.which % len(course.messages)
        places = [place for place, known in enumerate(line) if known.number == number]
        if places and line[places[0]].message.from_charger:
            _MISCHIEF[one.what](line, places[0], one.by, queues)
    return list(_received(line, queues))


def _lose(line: list[Told], place: int, _by: int, _queues: Any) -> None:
    del line[place]


def _repeat(line: list[Told], place: int, by: int, _queues: Any, *, renamed: bool = False) -> None:
    one = line[place]
    by = 1 if is_anew(one.message) else by
    message_id = f"{one.message_id}.{len(line)}" if renamed else one.message_id
    line.insert(place + by, replace(one, message_id=message_id))


def is_anew(message: Message) -> bool:
    """Whether a start after the stop of this one may be another one: by a clock that began at 1970."""
    return message.kind == START and message.at < LOST_CLOCK + timedelta(days=365)


def _again(line: list[Told], place: int, by: int, queues: Any) -> None:
    _repeat(line, place, by, queues, renamed=True)


def _delay(line: list[Told], place: int, by: int, _queues: Any) -> None:
    line.insert(place + by, line.pop(place))


def _queue(line: list[Told], place: int, by: int, queues: list[tuple[int, int]]) -> None:
    queues.append((line[place].number, line[min(place + by, len(line) - 1)].number))


def _replay(line: list[Told], place: int, by: int, _queues: Any) -> None:
    session = line[place].message.session
    copies = [t for t in line if t.message.session == session and t.message.kind in {START, READING, STOP}]
    if any(is_anew(t.message) for t in copies):
        return
    last = max(n for n, t in enumerate(line) if t.message.session == session)
    line[last + by : last + by] = [replace(t, message_id=f"{t.message_id}.{len(line)}") for t in copies]


def _absurd(line: list[Told], place: int, by: int, _queues: Any) -> None:
    message = line[place].message
    if message.register_wh is None or message.absurd:
        return
    value_wh = _ABSURD_OF[by % len(_ABSURD_OF)](message.register_wh)
    line[place] = replace(line[place], message=replace(message, register_wh=value_wh, absurd=True))


_MISCHIEF: dict[str, Any] = {
    stories.LOSE: _lose,
    stories.REPEAT: _repeat,
    stories.AGAIN: _again,
    stories.DELAY: _delay,
    stories.QUEUE: _queue,
    stories.REPLAY: _replay,
    stories.ABSURD: _absurd,
}


def _received(line: list[Told], queues: Sequence[tuple[int, int]]) -> Iterator[Told]:
    """Nothing arrives before it was made, or before what arrives first. What waits in the charger arrives at once."""
    clock = 0.0
    minutes = [one.message.minute for one in line]
    for first, last in queues:
        at = {one.number: place for place, one in enumerate(line)}
        if first in at and last in at:
            for place in range(at[first], at[last]):
                minutes[place] = max(minutes[place], line[at[last]].message.minute)
    for one, minute in zip(line, minutes, strict=True):
        clock = max(clock, minute)
        yield replace(one, received_min=clock)
