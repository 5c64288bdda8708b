"""The checkpoint that ships with the package, its card and the recipe that makes both."""
