"""Results for people and files: tables, JSON, and what the commands call."""
