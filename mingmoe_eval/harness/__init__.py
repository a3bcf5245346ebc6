"""All that we know of lm-eval's inside: its task objects, its result dicts, its files."""
