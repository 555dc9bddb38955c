"""What is measured, and with which statistics."""
