"""Bytes: what each phase of a job holds, and its highest moment."""
