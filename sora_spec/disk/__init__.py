"""What lies on disk: run folders, checkpoints and their checksums, written whole or not at all."""
