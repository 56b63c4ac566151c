"""What the commands print: tables, JSON objects, files."""
