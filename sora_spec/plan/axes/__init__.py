"""What may vary about a job."""
