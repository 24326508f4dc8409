"""Processes around the node: a player, a recorder, a simulated camera, and the demo."""
