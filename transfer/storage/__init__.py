"""Files on the disk: whole or not at all, locked, cached with checksums, fetched."""
