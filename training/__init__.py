"""The training loop, its schedule, state, runtime and tracking."""
