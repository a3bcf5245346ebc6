"""What holds for every test: one thread a worker, and the hypothesis profiles."""

import os

from hypothesis import settings

# The workers share the cores, and tiny tensors gain nothing from threads. Before torch is imported,
# here and in every process that a test starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same tries in every plain run, new and many ones in `make soak`.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("soak", max_examples=20_000, deadline=None)
settings.load_profile("repeatable")
