"""From a bundle or a run to video: executors, the pipeline over them, files."""
