"""The hypothesis profile of the long runs: `make soak`."""

from hypothesis import settings

settings.register_profile("soak", max_examples=20_000, deadline=None)
