"""What a student works with: check, hints, progress, starters, watch, doctor."""
