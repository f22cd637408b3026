"""The only door to Prefect: steps as tasks, runs as recorded flow runs, the server and its worker."""
