"""One run computed by many workers: which questions go where, what comes back, who died.

.
"""
