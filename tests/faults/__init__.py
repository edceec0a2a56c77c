"""Crashes, kills, failing networks and disks, hostile sources."""
