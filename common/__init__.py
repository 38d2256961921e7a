"""Configuration, types, networks, schedules, seeding and metrics that every role shares."""
