"""Real servers, real sockets: `make test`."""

import gc

gc.disable()  # until all is collected (conftest.py): imports make hardly any garbage, and looking for it takes a quarter
