"""The language: YAML text → document → spec, with every mistake at its line."""
