"""Configuration keys: the reported value, the desired one, and whether they agree (OCPP 1.6, 5.3, 5.8, 9)."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from csms.core.command_answers import CommandAnswer, as_int, as_objects, as_text
from csms.core.device_state import ConfigurationKey
from csms.core.masking import is_secret, without_credentials
from csms.core.work import Work

_LONGEST_KEY = 500  # the specification says 50


def key_id(name: str) -> str:
    """Return the id of a key, its name in lower case: names are CiStrings."""
    return name.strip().lower()


def on_get_configuration(work: Work, done: CommandAnswer) -> None:
    """Apply GetConfiguration.conf. A value that agrees with the desired one shows that a required reboot has happened."""
    for item in as_objects(done.answer.get("configurationKey")):
        name = as_text(item.get("key"))
        if not name or len(name) > _LONGEST_KEY or is_secret(name):
            continue
        raw = item.get("value")
        text = raw if raw is None or isinstance(raw, str) else msgspec.json.encode(raw).decode()
        value = None if text is None else without_credentials(text)
        known = _known(work, done.charger_id, name)
        readonly = item.get("readonly")
        agrees = known.desired is not None and same_value(value, known.desired)
        work.put(
            replace(
                known,
                name=name,
                supported=True,
                value=value,
                readonly=readonly if isinstance(readonly, bool) else known.readonly,
                seen_at=work.now,
                reboot_required=known.reboot_required and not agrees,
            )
        )
    unknown = done.answer.get("unknownKey")
    for name in unknown if isinstance(unknown, list) else []:
        if isinstance(name, str) and name and len(name) <= _LONGEST_KEY:
            known = _known(work, done.charger_id, name)
            work.put(replace(known, supported=False, value=None, seen_at=work.now))


def on_change_configuration(work: Work, done: CommandAnswer) -> None:
    """Apply ChangeConfiguration.conf: a value that the charger accepted becomes the desired one."""
    name, value = as_text(done.payload.get("key")), as_text(done.payload.get("value"))
    if not name or value is None or is_secret(name):
        return
    known = _known(work, done.charger_id, name)
    if done.status in {"Accepted", "RebootRequired"}:
        reboot = done.status == "RebootRequired"
        work.put(
            replace(
                known,
                supported=True,
                desired=without_credentials(value),
                desired_at=work.now,
                reboot_required=reboot,
            )
        )
    elif done.status == "NotSupported":
        work.put(replace(known, supported=False, seen_at=work.now))


def same_value(one: str | None, other: str | None) -> bool:
    """Return whether two values are equal, apart from blanks in lists, the case of true and false, and secrets."""
    return _normal(one) == _normal(other)


def configuration_in_sync(row: ConfigurationKey) -> bool | None:
    """Return whether the reported value is the desired one. None: none is desired, or none was reported since."""
    if row.desired is None or row.desired_at is None or row.seen_at is None or row.seen_at <= row.desired_at:
        return None
    return same_value(row.value, row.desired)


def integer_value(rows: Iterable[ConfigurationKey], name: str) -> int | None:
    """Return a key's reported value as an integer."""
    for row in rows:
        if row.key_id == key_id(name) and row.supported and row.value is not None:
            return as_int(int(row.value)) if row.value.strip().isdecimal() else None
    return None


def request_chunks(keys: Sequence[str], max_keys: int | None) -> list[list[str]]:
    """Divide GetConfiguration into requests of at most `max_keys` keys (GetConfigurationMaxKeys).

    No keys: one request for all.
    """
    if not keys:
        return [[]]
    size = max(max_keys, 1) if max_keys else len(keys)
    return [list(keys[first : first + size]) for first in range(0, len(keys), size)]


def _known(work: Work, charger_id: str, name: str) -> ConfigurationKey:
    known = work.device_row(ConfigurationKey, charger_id, key_id(name))
    return known or ConfigurationKey(charger_id=charger_id, key_id=key_id(name), name=name.strip())


def _normal(value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    parts = tuple(part.strip() for part in without_credentials(value).split(","))
    return tuple(part.lower() if part.lower() in {"true", "false"} else part for part in parts)
