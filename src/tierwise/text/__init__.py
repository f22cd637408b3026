"""Text in and out of files, terminals and models: escaping, YAML, tokens, language, terms, thoughts."""
