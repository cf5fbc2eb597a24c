"""A model graph for people and scripts: text, JSON, Mermaid, SVG."""
