"""Postgres: tables, the ledger's hot path, reads for API and console, migrations. SQL lives here only."""
