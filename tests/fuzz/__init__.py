"""Harnesses that kill, damage and mutate; a short run of each is part of the tests."""
