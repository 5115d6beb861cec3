"""Authorization of idTags (OCPP 1.6, 4.1, 5.13, 7.8)."""

from csms.core.records import Tag
from csms.core.reports import Authorization
from csms.core.work import Work, tag_key

ACCEPTED, EXPIRED, INVALID, CONCURRENT = "Accepted", "Expired", "Invalid", "ConcurrentTx"


def authorize(work: Work, id_tag: str, *, starting: bool = False) -> Authorization:
    """Return the idTagInfo of an idTag at `work.now`. `starting` also applies its limit of concurrent transactions."""
    tag = work.tag(id_tag)
    if tag is None:
        return Authorization(status=ACCEPTED if work.policy.unknown_tags == "accept" and id_tag else INVALID)
    return Authorization(
        status=_status(work, tag, starting=starting), expiry_at=tag.expiry_at, parent_id_tag=tag.parent_id_tag
    )


def _status(work: Work, tag: Tag, *, starting: bool) -> str:
    if tag.status != ACCEPTED:
        return tag.status
    if tag.expiry_at is not None and tag.expiry_at <= work.now:
        return EXPIRED
    if starting and tag.max_active_transactions is not None:
        key = tag_key(tag.id_tag)
        # A refused transaction delivers no energy: it must not keep its tag from charging elsewhere.
        active = sum(
            t.open and t.authorization_status == ACCEPTED and tag_key(t.id_tag) == key
            for t in work.transactions.values()
        )
        if active >= tag.max_active_transactions:
            return CONCURRENT
    return ACCEPTED
