"""Other servers under the same load, with the same stand-in engines: see README.md here."""
