"""Container images: built, packed as a bento, compared."""
