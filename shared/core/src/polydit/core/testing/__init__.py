"""What the tests of every package use: golden cases of published implementations."""
