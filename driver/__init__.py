"""What `launch.py` is made of: options, run directory, Ray, supervision, metrics and display."""
