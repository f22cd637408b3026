"""The starter project that `tierwise init` and `tierwise new` copy."""
