"""Side-by-side measurements of polydit's tools."""
