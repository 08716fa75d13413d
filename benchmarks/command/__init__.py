"""The time that the command takes to start and to finish."""
