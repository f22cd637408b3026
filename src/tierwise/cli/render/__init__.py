"""Values as tables and lines for the terminal."""
