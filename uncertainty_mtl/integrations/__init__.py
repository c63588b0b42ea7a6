"""Thin layers between the library and others; each is imported only by whoever asks for it."""
