"""The network, and how it starts."""
