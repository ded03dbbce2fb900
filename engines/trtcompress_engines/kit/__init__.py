"""A folder that builds and checks engines on a Jetson; `device` is the code that runs there."""
