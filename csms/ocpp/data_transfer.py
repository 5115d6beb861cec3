"""DataTransfer from charge points: which handler answers which vendorId and messageId (OCPP 1.6, 3.12 and 4.3).

A handler is a plain function of a `Transfer` and does not wait. Installed packages register theirs under the entry-point
group `csms.data_transfer`: each entry is a function that is called once with the registry.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final

import structlog
from msgspec import Struct

from csms.core.reports import Transferred

log = structlog.get_logger()
ENTRY_POINT_GROUP: Final = "csms.data_transfer"


class Transfer(Struct, frozen=True, kw_only=True):
    """A DataTransfer.req as it came. `data` is text of the vendor's own making."""

    charger_id: str
    vendor_id: str
    message_id: str | None = None
    data: str | None = None


TransferHandler = Callable[[Transfer], Transferred]


class Registry:
    """Handlers by vendorId and messageId. A handler without messageId takes all of its vendor's others."""

    def __init__(self) -> None:
        self._handlers: dict[str, dict[str | None, TransferHandler]] = {}

    def register(self, vendor_id: str, message_id: str | None, handler: TransferHandler) -> None:
        """Add a handler. Raises ValueError if there is one for this vendorId and messageId already."""
        own = self._handlers.setdefault(vendor_id.lower(), {})
        if message_id in own:
            raise ValueError(f"{vendor_id}/{message_id or '*'} has a handler already")
        own[message_id] = handler

    def handler(
        self, vendor_id: str, message_id: str | None = None
    ) -> Callable[[TransferHandler], TransferHandler]:
        """`register` as a decorator."""

        def registered(handler: TransferHandler) -> TransferHandler:
            self.register(vendor_id, message_id, handler)
            return handler

        return registered

    def answer(self, transfer: Transfer) -> Transferred:
        """UnknownVendorId, UnknownMessageId, or the handler's answer; Rejected if the handler fails."""
        own = self._handlers.get(transfer.vendor_id.lower())
        if own is None:
            return Transferred(status="UnknownVendorId")
        handler = own.get(transfer.message_id) or own.get(None)
        if handler is None:
            return Transferred(status="UnknownMessageId")
        try:
            return handler(transfer)
        except Exception:
            log.exception(
                "data_transfer_handler_failed",
                charger=transfer.charger_id,
                vendor=transfer.vendor_id,
                message=transfer.message_id,
            )
            return Transferred(status="Rejected")

    def load_entry_points(self) -> int:
        """Let installed packages register their handlers; how many did. One that fails is logged and left out."""
        loaded = 0
        for entry in entry_points(group=ENTRY_POINT_GROUP):
            try:
                entry.load()(self)
                loaded += 1
            except Exception:
                log.exception("data_transfer_handlers_not_loaded", entry=entry.name)
        return loaded


REGISTRY: Final = Registry()
