"""The audit log: event vocabulary, Merkle tree, signed checkpoints, export and offline verifier. Pure."""
