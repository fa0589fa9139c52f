"""Pure decisions: who may do what, and which certificates and groups are believed."""
