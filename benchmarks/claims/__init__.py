"""What papers claim of mixtures of LoRA experts, tried on tiny models and invented text.

`python -m benchmarks.claims` runs it; README.md says what is tried and how to read RESULTS.md.
"""
