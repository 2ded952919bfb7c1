"""The core abstraction: jobs, policy specs, preference spaces, methods and the runner."""
