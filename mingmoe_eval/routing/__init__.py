"""What a model's routers did in a run, from its forward passes to the page.

`log` listens to the routers and sums what they do for whoever a token belongs to; `account` says
whose the tokens of the engine's passes are; `counts` is the form in which sums are added, stored
and sent; `record` adds them up task by task and makes run.json's figures of them, by the formulas
of `expert_use`; `view` reads those figures again for the report. Nothing here asks a model.
"""
