"""From what is handed in to points and reports."""
