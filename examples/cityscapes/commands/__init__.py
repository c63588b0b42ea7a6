"""The commands that use all rooms, and what every command shares."""
