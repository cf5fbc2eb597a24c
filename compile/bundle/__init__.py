"""A bundle on disk: its manifest, what its graphs take and give, what it lists."""
