"""Work that runs beside requests: compaction and collection."""
