"""The shared core: everything that two domains use. It knows no domain."""
