"""changelog."""
