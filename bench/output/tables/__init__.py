"""Numbers as text, and tables: for terminals of any width, as CSV, Markdown and LaTeX."""
