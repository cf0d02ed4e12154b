"""Services under load, beside what the cores do without a server."""
