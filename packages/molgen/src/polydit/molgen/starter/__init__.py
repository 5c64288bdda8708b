"""The checkpoint that ships with the package, and the recipe that made it."""
