"""Prompts → features: a frozen text encoder of `transformers`, and its tokenizer."""
