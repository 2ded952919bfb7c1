"""Settings of every test process."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # busy threads on shared cores cost an order of magnitude
