"""The versioned JSON of every case, written atomically and read by gates and report without torch."""
