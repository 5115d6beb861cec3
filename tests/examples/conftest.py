"""The example as it stands in its folder, and whole nodes to run it against."""

import sys

from tests.e2e.conftest import start_node
from tests.harness.servers import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "examples" / "billing_consumer"))

__all__ = ["start_node"]
