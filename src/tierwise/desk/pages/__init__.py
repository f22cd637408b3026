"""The pages of the desk: one module with a router for each."""
