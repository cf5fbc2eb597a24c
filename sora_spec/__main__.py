"""`python -m sora_spec`."""

from sora_spec.cli.main import run

if __name__ == "__main__":
    run()
