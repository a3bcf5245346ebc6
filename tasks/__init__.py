"""tasks/ is data that holds code, found through `mingmoe_eval.locations`; it is no package."""

raise ImportError("tasks/ is not a package; ask mingmoe_eval.locations.tasks_dir() for the folder")
