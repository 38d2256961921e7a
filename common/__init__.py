"""What every role shares: settings, records, networks, policy files, schedules and seeding; nothing of Ray."""
