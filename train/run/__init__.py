"""A training run: its steps, its folder, and what any interruption leaves of both."""
