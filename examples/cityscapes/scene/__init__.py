"""From a network's outputs to what is in an image."""
