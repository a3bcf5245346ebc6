"""The families of checkpoints that can be told apart, and the names of their tensors."""

from mingmoe_eval.molora.formats.sniffing import Kind, sniff

__all__ = ["Kind", "sniff"]
