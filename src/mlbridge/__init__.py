"""One Model over many languages."""
__version__ = "0.1.0"
