"""What is written and said: records, tables, figures, folders, faults."""
