"""The fence: the only package that touches cryptographic primitives."""
