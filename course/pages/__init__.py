"""What makes the course page and README's tables."""
