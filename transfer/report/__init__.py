"""What was found, as documents: sections made once, in a terminal, Markdown and HTML."""
