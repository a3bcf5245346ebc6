"""One run computed by many workers: which questions go where, what comes back, who died.

`crew` is the backend that an evaluation sees; `ledger` knows who holds which questions, `worker`
answers them, `packing` is what travels between. Workers live in Ray's actors (`ray_cluster`) or in
the processes of a launch (`ranks`).
"""
