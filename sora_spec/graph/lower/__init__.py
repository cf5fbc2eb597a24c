"""From a spec to a run: each module mirrors one module of `sora_spec.builders`, line by line and local by local."""
