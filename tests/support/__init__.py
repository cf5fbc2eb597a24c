"""What several tests share: straight-line statements of published networks, specs, mutants of the graph's rules."""
