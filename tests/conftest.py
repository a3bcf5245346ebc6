"""The hypothesis profiles: the same tries in every plain run, new and many ones in `make soak`."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("soak", max_examples=20_000, deadline=None)
settings.load_profile("repeatable")
