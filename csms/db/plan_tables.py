"""Tables of charging plans: the terms of OCPP chargers' plans, and the current plan of every charger as shown."""

from sqlalchemy import Boolean, Column, Integer, Table, text
from sqlalchemy.dialects.postgresql import JSONB

from csms.db.schema import charger_column, metadata, now_column

# `terms`, `hems`, `delivery` hold csms.scheduling's Terms, HemsWish and PlanDelivery. Each has one writer: operators,
# the node that receives the HEMS's messages, the node that holds the charger. A removed plan stays until its profile
# is cleared on the charger.
charging_plans = Table(
    "charging_plans",
    metadata,
    charger_column(),
    Column("terms", JSONB, nullable=False),
    Column("removed", Boolean, nullable=False, server_default=text("false")),
    Column("hems", JSONB(none_as_null=True)),
    Column("delivery", JSONB(none_as_null=True)),
    now_column("changed_at"),
)

# `shown` holds csms.scheduling's PlanView as it last changed.
plan_views = Table(
    "plan_views",
    metadata,
    charger_column(),
    Column("connector_id", Integer, primary_key=True, autoincrement=False),
    Column("shown", JSONB, nullable=False),
    now_column("changed_at"),
)
