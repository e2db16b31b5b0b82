"""Small synthetic worlds, written to disk in the official layout of each benchmark."""
