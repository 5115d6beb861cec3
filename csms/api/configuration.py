"""A charger's configuration: as reported, as desired, where they differ."""

from csms.api.chargers import ChargerId
from csms.api.device_state_models import Configuration, ConfigurationKeyOut, Refresh
from csms.api.security import Context, Operator, guarded_router, viewer
from csms.core.configuration import configuration_in_sync, integer_value, request_chunks
from csms.db import device_state_views
from csms.service.chargers import known
from csms.service.commands import perform
from csms.service.context import ServiceContext

router = guarded_router(prefix="/chargers", tags=["configuration"])


@router.get("/{charger_id:segment}/configuration", dependencies=[viewer])
async def get_configuration(context: Context, charger_id: ChargerId, drift: bool = False) -> Configuration:
    """What is known of a charger's configuration keys, without asking it. `drift`: only where it differs."""
    await known(context, charger_id)
    return await _shown(context, charger_id, drift=drift)


@router.post("/{charger_id:segment}/configuration/refresh")
async def refresh_configuration(
    context: Context, charger_id: ChargerId, asked: Refresh, who: Operator
) -> Configuration:
    """Ask the charger for these keys (none: all), in as many requests as its GetConfigurationMaxKeys demands."""
    await known(context, charger_id)
    async with context.engine.connect() as db:
        most = integer_value(
            await device_state_views.configuration(db, charger_id), "GetConfigurationMaxKeys"
        )
    for keys in request_chunks(asked.keys, most):
        await perform(
            context, who, charger_id, "GetConfiguration", {"key": keys} if keys else {}, asked.timeout_s
        )
    return await _shown(context, charger_id)


async def _shown(context: ServiceContext, charger_id: str, *, drift: bool = False) -> Configuration:
    async with context.engine.connect() as db:
        rows = await device_state_views.configuration(db, charger_id)
    if drift:
        rows = [row for row in rows if configuration_in_sync(row) is False]
    return Configuration(items=[ConfigurationKeyOut.of(row) for row in rows])
