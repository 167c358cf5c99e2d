"""Raw files -> normalised texts: everything that knows bytes, formats and character sets."""
