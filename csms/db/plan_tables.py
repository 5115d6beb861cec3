"""The tables of charging plans: how OCPP chargers are planned, and what people are shown of anybody's plan."""

from sqlalchemy import Boolean, Column, Integer, Table, text
from sqlalchemy.dialects.postgresql import JSONB

from csms.db.device_state_tables import _charger
from csms.db.tables import _now, metadata

# `terms`, `hems`, `delivery`: csms.scheduling's Terms, HemsWish, Delivery. Each column has its own writers: operators,
# whoever hears a HEMS, the node that holds the charger. A removed plan stays until the charger is rid of its profile.
charging_plans = Table(
    "charging_plans",
    metadata,
    _charger(),
    Column("terms", JSONB, nullable=False),
    Column("removed", Boolean, nullable=False, server_default=text("false")),
    Column("hems", JSONB(none_as_null=True)),
    Column("delivery", JSONB(none_as_null=True)),
    _now("changed_at"),
)

# `shown` is csms.scheduling's PlanView, as of the last time that it was another than before.
plan_views = Table(
    "plan_views",
    metadata,
    _charger(),
    Column("connector_id", Integer, primary_key=True, autoincrement=False),
    Column("shown", JSONB, nullable=False),
    _now("changed_at"),
)
