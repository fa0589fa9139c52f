"""Hostile input to the MLS core: for every check a message that breaks just that one."""
