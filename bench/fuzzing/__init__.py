"""What `bench fuzz` sends: right messages, what is done to them, and the visits that bring them to a daemon."""
