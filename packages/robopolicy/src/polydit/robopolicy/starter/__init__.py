"""The policy that ships with the package, the recipe that made it, and its card."""
